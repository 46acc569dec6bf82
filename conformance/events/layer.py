"""Events of whole layers: their shared expert, what scales the routed experts, slots, biases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from moe_routing.conformance.calls.layer import LayerCase
from moe_routing.conformance.events.registry import event
from moe_routing.conformance.generators.choices import seeded
from moe_routing.conformance.generators.layer import LayerWishes, choose_layer_case
from moe_routing.conformance.judge.layer import LayerFacts
from moe_routing.implementations import Capabilities
from moe_routing.reference.formats import Bools

_TRIED = 16
_SMALL: dict[str, Any] = {
    "num_experts": lambda offered: [n for n in offered if n <= 4],
    "num_tokens": lambda offered: [n for n in offered if n == 3],
    "top_k": lambda offered: [n for n in offered if n == 2],
    "hidden_size": lambda offered: [n for n in offered if n <= 4],
    "recipe": lambda offered: [name for name in offered if name == "normal"],
    "layout": lambda offered: ["rows"],
}
_PLAIN = {"width": (4, 8), "shared_width": (1,), "values": ("eighths",)}


def composed(
    slug: str, statement: str, occurs: Callable[[LayerFacts], bool], **wanted: Any
) -> None:
    """Register an event that a small layer shows, with these values where they are claimed."""
    router = {name: each for name, each in wanted.items() if callable(each)}
    own = {name: each for name, each in wanted.items() if name not in router}
    wishes = LayerWishes(router={**_SMALL, **router}, own={**_PLAIN, **own})

    @event(
        f"layer-{slug}", statement, lambda facts: isinstance(facts, LayerFacts) and occurs(facts)
    )
    def _(capabilities: Capabilities) -> Iterator[LayerCase]:
        if capabilities.takes == "hidden":
            for seed in range(_TRIED):
                made = choose_layer_case(seeded(seed), capabilities, wishes)
                yield replace(made, recipe="constructed")


def shows(facts: LayerFacts, factor: float) -> Bools:
    """Return whose outputs ``[T]`` show the shared expert's share times ``factor``, not once."""
    if facts.shared is None:
        return np.zeros(facts.inputs.num_tokens, dtype=bool)
    due, adds = facts.routed.output, facts.shared.mid
    away = np.abs((factor - 1.0) * adds) > 2.0 * due.rad
    return np.asarray((away & due.decided).any(axis=1))


def _shared(facts: LayerFacts, *, gated: bool) -> bool:
    there = facts.config.shared.kind != "none" and facts.config.shared.gated == gated
    return there and bool((shows(facts, 0.0) & shows(facts, 2.0)).any())


for _gated, _words in ((False, "without a gate"), (True, "with a gate")):
    composed(
        "shared-gated" if _gated else "shared",
        f"a shared expert {_words}, which would be missed and seen twice",
        lambda facts, gated=_gated: _shared(facts, gated=gated),  # type: ignore[misc]
        shared=("singular", "plural", "mlp"),
        shared_gated=(_gated,),
    )
composed(
    "without-shared",
    "a layer without a shared expert, and tokens with several experts",
    lambda facts: facts.config.shared.kind == "none" and _several(facts),
    shared=("none",),
)
composed(
    "scaled-beside-shared",
    "a routed scaling factor that would show on the shared expert",
    lambda facts: (
        facts.config.router.scale != 1.0 and bool(shows(facts, facts.config.router.scale).any())
    ),
    scale=lambda offered: [each for each in offered if each not in (0.0, 1.0)],
    shared=("singular", "plural", "mlp"),
)
composed(
    "several",
    "tokens with several experts, of weights that differ",
    lambda facts: _several(facts),
)
composed(
    "biased-experts",
    "experts with biases beside a router that has none",
    lambda facts: (
        facts.inputs.experts_up_bias is not None
        and facts.inputs.gate_bias is None
        and facts.inputs.num_tokens > 0
    ),
    biases=(True,),
)
composed(
    "selection-bias",
    "a selection bias, which weighs no expert, and moves a choice",
    lambda facts: _moved(facts),
    selection_bias=lambda offered: [place for place in offered if place != "none"],
    bias=lambda offered: [name for name in offered if name != "zero"],
)
composed(
    "no-token",
    "a layer without tokens",
    lambda facts: facts.inputs.num_tokens == 0,
    num_tokens=lambda offered: [n for n in offered if n == 0],
)


def _several(facts: LayerFacts) -> bool:
    weights = facts.bounds.reference.weights
    if weights.size == 0 or weights.shape[1] < 2:
        return False
    apart = weights.max(axis=1) != weights.min(axis=1)
    return bool((apart & facts.routed.decided).any())


def _moved(facts: LayerFacts) -> bool:
    """Return whether the chosen experts are not those of the greatest scores."""
    if facts.inputs.selection_bias is None or not facts.inputs.num_tokens:
        return False
    found = facts.bounds.reference
    least = np.take_along_axis(found.scores, found.expert_ids, axis=1).min(axis=1)
    above = (found.scores > least[:, None]).sum(axis=1)
    return bool((above >= facts.config.router.top_k).any())
