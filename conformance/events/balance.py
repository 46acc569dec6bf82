"""Events of balance: loads, padding, layers, and what makes two formulas differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np

from moe_routing.conformance.calls.balance import BalanceCase
from moe_routing.conformance.events.registry import event
from moe_routing.conformance.generators.balance import case_of
from moe_routing.conformance.judge.balance import Owed
from moe_routing.implementations import Capabilities
from moe_routing.implementations.balances import Balances
from moe_routing.reference.balance import BALANCE_WORDS, BalanceConfig, expert_counts

Occurs = Callable[[Owed], bool]

LOGITS = (
    ((2.0, 1.0, 0.0, -1.0), (1.5, 0.5, 2.5, -0.5), (3.0, -1.0, 0.25, 1.0), (2.0, 0.5, -2.0, 1.5)),
    ((0.0, 2.0, 1.0, -1.0), (0.5, 2.5, -0.5, 1.5), (-1.0, 3.0, 1.0, 0.25), (0.5, 1.0, 2.0, -2.0)),
)
"""Two layers of four tokens and four experts, whose best expert is mostly the first, the second."""


def _balanced(slug: str, statement: str, occurs: Occurs, **wanted: Any) -> None:
    """Register an event that some claimed case of the logits above shows.

    ``wanted``: ``top_k``, ``layers``, ``valid`` and ``ids`` of the inputs, what their logits are
    multiplied by (``times``), and words of the configuration.
    """

    @event(f"balanced-{slug}", statement, lambda facts: isinstance(facts, Owed) and occurs(facts))
    def _(capabilities: Capabilities) -> Iterator[BalanceCase]:
        balances = capabilities.balances
        for config in configs(balances, wanted):
            for top_k, layers in product(
                wanted.get("top_k", (2, 1, 3)), wanted.get("layers", (1, 2))
            ):
                case = _case(config, top_k, layers, wanted)
                if not balances.refusals(config, case.inputs):
                    yield case


def configs(
    balances: Balances, wanted: dict[str, Any], experts: int = 4
) -> Iterator[BalanceConfig]:
    """Yield configurations that ``balances`` claims, of the wanted words, the plainest first."""
    axes = {
        name: [each for each in wanted.get(name, words) if each in getattr(balances, name)]
        for name, words in BALANCE_WORDS.items()
    }
    for values in product(*axes.values()):
        given: dict[str, Any] = dict(zip(axes, values, strict=True))
        yield BalanceConfig(num_experts=experts, **given)


def _case(config: BalanceConfig, top_k: int, layers: int, wanted: dict[str, Any]) -> BalanceCase:
    logits = np.array(LOGITS)[:layers] * wanted.get("times", 1.0)
    ids = np.argsort(-logits, axis=2)[:, :, :top_k]
    if "ids" in wanted:
        ids = np.broadcast_to(np.array(wanted["ids"]), (layers, 4, len(wanted["ids"][0])))
    bias = np.broadcast_to(np.array([0.5, -0.25, 0.125, 0.0]), (layers, 4))
    return case_of(config, logits, ids, wanted.get("valid"), bias)


def _padded(owed: Owed) -> bool:
    inputs = owed.inputs
    whole = (inputs.expert_ids >= 0).sum()
    return 0 < inputs.num_valid < inputs.num_tokens and bool(expert_counts(inputs).sum() < whole)


def _uneven(owed: Owed) -> bool:
    counts = expert_counts(owed.inputs)
    return bool((counts.max(axis=1) > counts.min(axis=1)).all()) and owed.inputs.num_valid > 0


_balanced(
    "uneven",
    "experts have different counts",
    _uneven,
)
_balanced(
    "second-slot",
    "counts of the second slots that are not those of the first",
    lambda o: (
        o.inputs.top_k > 1
        and not np.array_equal(expert_counts(o.inputs), 2 * expert_counts(o.inputs, "first"))
    ),
)
_balanced(
    "idle-expert",
    "an expert of several has no route, and the last one has some or none",
    lambda o: bool((expert_counts(o.inputs) == 0).any()) and _uneven(o),
)
_balanced(
    "padded",
    "some tokens are padding, and have routes",
    _padded,
    valid=(1, 0, 1, 1),
)
_balanced(
    "absent",
    "some routes of valid tokens are absent",
    lambda o: bool(((o.inputs.expert_ids < 0) & (o.inputs.valid[None, :, None] == 1)).any()),
    ids=((0, 1), (-1, 2), (0, -1), (3, 0)),
    top_k=(2,),
)
_balanced(
    "not-chosen",
    "experts that are not those of the greatest logits",
    lambda o: _uneven(o) and not _greatest(o),
    ids=((3, 1), (3, 0), (1, 2), (3, 2)),
    top_k=(2,),
)
_balanced(
    "several-layers",
    "several layers whose counts differ",
    lambda o: o.inputs.num_layers > 1 and len({tuple(c) for c in expert_counts(o.inputs)}) > 1,
    layers=(2,),
)
for _over in BALANCE_WORDS["over_layers"]:
    _balanced(
        f"layers-{_over}",
        f"losses of several layers are over layers: {_over}",
        lambda o, over=_over: (  # type: ignore[misc]
            o.inputs.num_layers > 1
            and o.config.over_layers == over
            and len({tuple(c) for c in expert_counts(o.inputs)}) > 1
        ),
        layers=(2,),
        over_layers=(_over,),
    )
for _at in BALANCE_WORDS["at_balance"]:
    _balanced(
        f"is-{_at}",
        f"the loss of a perfect balance is {_at}, of several slots",
        lambda o, at=_at: (  # type: ignore[misc]
            o.inputs.top_k > 1 and o.config.at_balance == at and o.config.counted == "all"
        ),
        at_balance=(_at,),
        counted=("all",),
        top_k=(2, 3),
    )
_balanced(
    "first-counted",
    "first slots alone are counted, of several",
    lambda o: o.inputs.top_k > 1 and o.config.counted == "first" and _uneven(o),
    counted=("first",),
    top_k=(2,),
)
for _score in BALANCE_WORDS["score"]:
    _balanced(
        f"by-{_score}",
        f"shares made by a {_score}, of experts with different counts",
        lambda o, score=_score: o.config.score == score and _uneven(o),  # type: ignore[misc]
        score=(_score,),
    )
for _update in BALANCE_WORDS["update"]:
    _balanced(
        f"update-{_update}",
        f"a step of training whose update is {_update}, with more experts on one side of the mean",
        lambda o, update=_update: (  # type: ignore[misc]
            o.config.update == update and o.config.mode == "train" and _off_centre(o)
        ),
        update=(_update,),
        mode=("train",),
    )
_balanced(
    "evaluation",
    "a step of evaluation, of experts with different counts",
    lambda o: o.config.mode == "eval" and _uneven(o),
    mode=("eval",),
)
_balanced(
    "large-logits",
    "logits whose exponential overflows float32",
    lambda o: bool((np.abs(o.inputs.logits).max(axis=-1) > 89.0).any()) and _uneven(o),
    times=64.0,
)
_balanced(
    "recomputed",
    "a step whose forward pass is run again, of experts with different counts",
    lambda o: o.config.mode == "recompute" and _uneven(o),
    mode=("recompute",),
)


def _greatest(owed: Owed) -> bool:
    inputs = owed.inputs
    best = np.sort(np.argsort(-inputs.logits, axis=2)[:, :, : inputs.top_k], axis=2)
    return bool(np.array_equal(best, np.sort(inputs.expert_ids, axis=2)))


def _off_centre(owed: Owed) -> bool:
    """Whether more experts are above the mean than below it, or fewer."""
    counts = expert_counts(owed.inputs)
    side = np.sign(counts * counts.shape[1] - counts.sum(axis=1, keepdims=True))
    return bool((side.sum(axis=1) != 0).any())
