"""Events of whole layers: more tokens, experts, slots and columns than are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from moe_routing.conformance.calls.layer import LayerCase
from moe_routing.conformance.events.registry import FAMILIES, event
from moe_routing.conformance.generators.choices import seeded
from moe_routing.conformance.generators.layer import LayerWishes, choose_layer_case
from moe_routing.conformance.generators.layer_smaller import keep
from moe_routing.conformance.judge.layer import LayerFacts
from moe_routing.implementations import Capabilities
from moe_routing.reference import route

_TRIED = 8
_MOST = {"num_experts": 300, "top_k": 16, "num_tokens": 8}
_PLAIN: dict[str, Any] = {
    "num_experts": lambda offered: [n for n in offered if n in (3, 4)],
    "num_tokens": lambda offered: [n for n in offered if n == 7],
    "top_k": lambda offered: [n for n in offered if n == 2],
    "hidden_size": lambda offered: [n for n in offered if n <= 4],
    "recipe": lambda offered: [name for name in offered if name == "normal"],
    "layout": lambda offered: ["rows"],
    "columns": lambda offered: [0],
}

FAMILIES["layer-large"] = "layers of more tokens, experts or slots than are drawn"


def _large(
    slug: str,
    statement: str,
    occurs: Callable[[LayerFacts], bool],
    *,
    tokens: int | None = None,
    width: int = 4,
    **sizes: int,
) -> None:
    """Register an event that a layer of these sizes shows, with a shared expert where claimed."""
    router = {
        n: lambda offered, size=s: [n for n in offered if n == size] for n, s in sizes.items()
    }
    wishes = LayerWishes(
        router={**_PLAIN, **router},
        own={
            "width": (width, 4, 8),
            "shared_width": (3,),
            "shared": ("singular", "plural", "mlp"),
            "values": ("eighths",),
        },
        most=_MOST,
    )

    @event(
        f"layer-large:{slug}",
        statement,
        lambda facts: isinstance(facts, LayerFacts) and occurs(facts) and _told(facts),
    )
    def _(capabilities: Capabilities) -> Iterator[LayerCase]:
        if capabilities.takes == "hidden":
            for seed in range(_TRIED):
                made = choose_layer_case(seeded(seed), capabilities, wishes)
                if tokens is not None and made.num_tokens:
                    made = keep(made, "tokens", np.arange(tokens) % made.num_tokens)
                yield replace(_ending_busy(made), recipe="constructed")


def _ending_busy(case: LayerCase) -> LayerCase:
    """Return the layer whose last expert is one that its first token chooses, without groups."""
    router, experts = case.config.router, case.config.router.num_experts
    if router.groups is not None or case.inputs.expert_table is not None or not case.num_tokens:
        return case
    chosen, order = route(router, case.inputs.router).expert_ids[0, 0], np.arange(experts)
    order[[chosen, -1]] = order[[-1, chosen]]
    return keep(case, "experts", order)


def _told(facts: LayerFacts) -> bool:
    """Whether some output is decided."""
    return bool(facts.routed.decided.any())


for _number in (70, 1030):
    _large(
        f"{_number}-tokens",
        f"{_number} tokens",
        lambda facts, number=_number: facts.inputs.num_tokens == number,  # type: ignore[misc]
        tokens=_number,
    )
for _number in (64, 128, 257):
    _large(
        f"{_number}-experts",
        f"{_number} experts, the last of which is chosen",
        lambda facts, number=_number: (  # type: ignore[misc]
            facts.config.router.num_experts == number
            and bool((facts.bounds.reference.expert_ids == number - 1).any())
        ),
        num_experts=_number,
    )
_large(
    "9-slots",
    "more than 8 experts a token",
    lambda facts: facts.config.router.top_k > 8,
    num_experts=16,
    top_k=9,
)
