"""Events of balance: more layers, tokens and experts than are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from moe_routing.conformance.calls.balance import BalanceCase
from moe_routing.conformance.events.balance import configs
from moe_routing.conformance.events.registry import FAMILIES, event
from moe_routing.conformance.generators.balance import case_of
from moe_routing.conformance.judge.balance import Owed
from moe_routing.implementations import Capabilities
from moe_routing.reference.balance import expert_counts

FAMILIES["balanced-large"] = "a step of more layers, tokens or experts than are drawn"


def _large(
    slug: str,
    statement: str,
    occurs: Callable[[Owed], bool],
    sizes: tuple[int, int, int],
    favourite: Callable[[Any, Any], Any],
    **words: tuple[str, ...],
) -> None:
    """Register an event that logits ``[L, T, E]`` show whose best expert is a favourite."""
    layers, tokens, experts = sizes

    @event(f"balanced-large:{slug}", statement, lambda o: isinstance(o, Owed) and occurs(o))
    def _(capabilities: Capabilities) -> Iterator[BalanceCase]:
        layer, token = np.arange(layers)[:, None], np.arange(tokens)
        best = np.broadcast_to(favourite(layer, token), (layers, tokens))
        logits = np.broadcast_to(-np.arange(experts) / 64.0, sizes).copy()
        np.put_along_axis(logits, best[..., None], 1.0, axis=2)
        bias = np.broadcast_to(np.arange(experts) / 1024.0, (layers, experts))
        for config in configs(capabilities.balances, words, experts):
            for top_k in (1, 2, 3):
                ids = np.argsort(-logits, axis=2, kind="stable")[:, :, :top_k]
                case = case_of(config, logits, ids, None, bias)
                if not capabilities.balances.refusals(config, case.inputs):
                    yield case


def _apart(owed: Owed) -> bool:
    """Whether the last layer has counts that no other has."""
    counts = [tuple(each) for each in expert_counts(owed.inputs)]
    return counts.count(counts[-1]) == 1


for _over in ("sum", "mean", "pooled"):
    _large(
        f"9-layers-{_over}",
        f"nine layers, the last of them with counts of its own, losses over layers: {_over}",
        lambda o, over=_over: (  # type: ignore[misc]
            o.inputs.num_layers == 9 and o.config.over_layers == over and _apart(o)
        ),
        (9, 12, 4),
        lambda layer, token: np.where(token <= layer, 3, token % 3),
        over_layers=(_over,),
    )
_large(
    "4101-tokens",
    "4,101 tokens, and a count above 2,048 that 16 bits do not hold",
    lambda o: o.inputs.num_tokens == 4101 and bool((_late(o) % 2 == 1).any()),
    (1, 4101, 3),
    lambda layer, token: np.where(token % 41 < 23, 2, 0) + 0 * layer,
)
for _number in (64, 128, 256):
    _large(
        f"{_number}-experts",
        f"{_number} experts, the last of them with routes",
        lambda o, number=_number: (  # type: ignore[misc]
            o.inputs.num_experts == number and bool(expert_counts(o.inputs)[:, -1].all())
        ),
        (1, 4, _number),
        lambda layer, token, last=_number - 1: last - token % 3 + 0 * layer,  # type: ignore[misc]
    )


def _late(owed: Owed) -> Any:
    counts = expert_counts(owed.inputs)
    return counts[counts > 2048]
