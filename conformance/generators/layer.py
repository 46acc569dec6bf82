"""Calls of a whole layer: a drawn routing call of few sizes, experts for it, a shared expert."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moe_routing.conformance.calls.layer import LayerCase
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.generators.axes import Choose
from moe_routing.conformance.generators.choices import Focus, Offers, choose_case
from moe_routing.conformance.generators.experts import Draft, choose_options
from moe_routing.implementations import Capabilities
from moe_routing.reference import ExpertsConfig, LayerConfig, LayerInputs, SharedExpertConfig
from moe_routing.reference.formats import INPUT_FORMATS

Offer = Callable[[Sequence[Any]], Sequence[Any]]

RECIPES = ("normal", "normal", "lattice", "duplicated", "wide", "crowded")
"""The recipes of routing calls whose hidden states are numbers that experts are given."""

MOST = {"num_experts": 16, "top_k": 8, "num_tokens": 33}
"""The greatest sizes that are drawn, so that a case takes milliseconds."""

HIDDEN = (4, 1, 2, 3, 8, 16, 17, 33)
WIDTHS = (4, 1, 2, 3, 8, 16, 17)
TIMES = (1, 2, 3)
"""How many times as wide as an expert the shared one is: DeepSeek's number of shared experts."""

VALUES = ("eighths", "normal")


@dataclass(frozen=True, kw_only=True)
class LayerWishes:
    """What a clause or an event wants of its calls.

    ``router`` filters choices of the routing call, as ``Focus.offers`` does; ``own`` lists the
    wanted values of the choices of the experts, where those are claimed; ``most`` are the greatest
    sizes.
    """

    router: Offers = field(default_factory=dict)
    own: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    most: Mapping[str, int] = field(default_factory=lambda: MOST)


def choose_layer_case(
    choose: Choose, capabilities: Capabilities, wishes: LayerWishes | None = None
) -> LayerCase:
    """Return a case that ``capabilities`` claim, made by choices."""
    wishes, computes = wishes or LayerWishes(), capabilities.computes
    limits = {"num_experts": computes.max_experts, "top_k": computes.max_top_k}
    limits["num_tokens"] = computes.max_tokens
    offers: dict[str, Offer] = {"optional arrays": _without_table}
    most = wishes.most
    offers |= {name: _at_most(min(most[name], n or most[name])) for name, n in limits.items()}
    for name, wanted in wishes.router.items():
        offers[name] = _both(offers[name], wanted) if name in offers else wanted
    focus = Focus(
        recipes=RECIPES,
        hidden_sizes=tuple(_multiples(HIDDEN, computes.hidden_multiple_of)),
        offers=offers,
    )
    routed = choose_case(choose, capabilities, focus)

    def pick(name: str, claimed: Sequence[Any]) -> Any:
        wanted = [each for each in wishes.own.get(name, ()) if each in claimed]
        return choose(name, wanted or claimed)

    return with_experts(pick, routed, capabilities)


def with_experts(pick: Choose, routed: Case, capabilities: Capabilities) -> LayerCase:
    """Return the layer of a routing call, whose experts are made by choices."""
    computes, composes = capabilities.computes, capabilities.composes
    values = pick("values", VALUES)
    options = choose_options(pick, computes, values)
    experts = ExpertsConfig(num_experts=routed.config.num_experts, **options)
    kind = pick("shared", composes.shared)
    gated = kind != "none" and pick("shared_gated", composes.gated)
    config = LayerConfig(
        router=routed.config,
        experts=experts,
        shared=SharedExpertConfig(kind=kind, gated=gated),
    )
    sizes = {
        "H": routed.inputs.hidden_size,
        "F": pick("width", _multiples(WIDTHS, computes.width_multiple_of)),
    }
    times = 0 if kind == "none" else pick("shared_width", TIMES)
    rng = np.random.default_rng(pick("seed", range(2**16)))
    draft = Draft(rng, experts, INPUT_FORMATS[routed.dtype], values, sizes)
    biased = pick("biases", computes.biases)
    inputs = LayerInputs(
        **vars(routed.inputs),
        **_of_experts(draft, biased=biased),
        **_of_shared(draft, times, gated=gated),
    )
    return LayerCase(config=config, inputs=inputs, recipe=routed.recipe)


def _of_experts(draft: Draft, *, biased: bool) -> dict[str, Any]:
    experts, width, hidden = draft.config.num_experts, draft.sizes["F"], draft.sizes["H"]
    gated = draft.config.gated
    made = {
        "experts_up": draft.drawn("up", experts, width, hidden),
        "experts_down": draft.drawn("down", experts, hidden, width),
    }
    if gated:
        made["experts_gate"] = draft.drawn("gate", experts, width, hidden)
    if biased:
        made["experts_up_bias"] = draft.drawn("bias", experts, width)
        made["experts_down_bias"] = draft.drawn("bias", experts, hidden)
        if gated:
            made["experts_gate_bias"] = draft.drawn("bias", experts, width)
    return made


def _of_shared(draft: Draft, times: int, *, gated: bool) -> dict[str, Any]:
    """Draw a shared expert that is ``times`` as wide as an expert; none at 0 times."""
    if not times:
        return {}
    width, hidden = times * draft.sizes["F"], draft.sizes["H"]
    made = {
        "shared_gate_proj": draft.drawn("gate", width, hidden),
        "shared_up_proj": draft.drawn("up", width, hidden),
        "shared_down_proj": draft.drawn("down", hidden, width),
    }
    return {**made, "shared_gate": draft.drawn("gate", 1, hidden)} if gated else made


def _at_most(most: int) -> Offer:
    return lambda offered: [n for n in offered if n <= most]


def _both(first: Offer, second: Offer) -> Offer:
    return lambda offered: second(first(offered)) or first(offered)


def _without_table(offered: Sequence[Any]) -> Sequence[Any]:
    return [parts for parts in offered if "expert_table" not in parts]


def _multiples(sizes: Sequence[int], step: int) -> list[int]:
    return [n for n in sizes if n % step == 0] or [step, 2 * step]
