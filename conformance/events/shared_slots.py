"""Events of shared experts that run as slots of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.registry import FAMILIES, ROWS, event
from moe_routing.conformance.events.sizes import ladder
from moe_routing.conformance.generators.construct import table_cases, take_tokens
from moe_routing.conformance.judge import Bounds
from moe_routing.implementations import Capabilities
from moe_routing.reference import SharedSlots


def _behind(test: Callable[[Bounds, SharedSlots], bool]) -> Callable[[Bounds], bool]:
    """Return a test of what calls with shared slots and tokens show as well."""

    def occurs(bounds: Bounds) -> bool:
        shared = bounds.config.shared_slots
        return shared is not None and bounds.inputs.num_tokens > 0 and test(bounds, shared)

    return occurs


def _any(shared: SharedSlots | None) -> bool:
    return shared is not None


@event(
    "shared-slot", "a shared expert in a slot behind the routed ones", _behind(lambda b, s: True)
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for top_k in (2, 1):
        yield from table_cases(capabilities, ROWS, top_k=top_k, wants={"shared_slots": _any})


@event(
    "several-shared-slots",
    "several shared experts, in a slot each",
    _behind(lambda b, s: s.count > 1),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    wants = {"shared_slots": lambda s: s is not None and s.count > 1}
    for top_k in (2, 1):
        yield from table_cases(capabilities, ROWS, top_k=top_k, wants=wants)


@event(
    "shared-slot-of-another-weight",
    "a shared expert whose weight is not 1",
    _behind(lambda b, s: s.weight != 1.0),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    wants = {"shared_slots": lambda s: s is not None and s.weight != 1.0}
    for top_k in (2, 1):
        yield from table_cases(capabilities, ROWS, top_k=top_k, wants=wants)


@event(
    "shared-slot-beside-a-scale",
    "a shared expert beside routed ones that are scaled",
    _behind(lambda b, s: b.config.scale not in (0.0, 1.0)),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    wants = {"shared_slots": _any, "scale": lambda scale: scale not in (0.0, 1.0)}
    for top_k in (2, 1):
        yield from table_cases(capabilities, ROWS, top_k=top_k, wants=wants)


@event(
    "shared-slot-beside-a-norm",
    "a shared expert beside several routed ones that are renormalised",
    _behind(lambda b, s: b.config.renormalize is not None and b.config.top_k > 1),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    wants = {"shared_slots": _any, "renormalize": lambda rule: rule is not None}
    for top_k in (2, 3):
        yield from table_cases(capabilities, ROWS, top_k=top_k, wants=wants)


FAMILIES["shared-slot-at"] = "shared experts in slots, in calls of a size where kernels change"


@event(
    "shared-slot-at:1026-experts",
    "a shared expert whose id is above 1,023, and in neither 8 nor 10 bits",
    _behind(lambda b, s: b.config.num_experts > 1023),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = ladder(2, 1026)
    for top_k in (8, 2, 1):
        yield from table_cases(capabilities, rows, top_k=top_k, wants={"shared_slots": _any})


@event(
    "shared-slot-at:257-experts",
    "a shared expert whose id is above 255",
    _behind(lambda b, s: b.config.num_experts > 255),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for experts, top_k in product((256, 257), (8, 2, 1)):
        rows = ladder(2, experts)
        yield from table_cases(capabilities, rows, top_k=top_k, wants={"shared_slots": _any})


@event(
    "shared-slot-at:16385-tokens",
    "a shared expert behind the routed ones of more than 16,384 tokens",
    _behind(lambda b, s: b.inputs.num_tokens > 16_384),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for top_k in (2, 1):
        for case in table_cases(capabilities, ROWS, top_k=top_k, wants={"shared_slots": _any}):
            yield take_tokens(case, np.arange(16_385) % case.inputs.num_tokens)


def _norm_is_tiny(bounds: Bounds, shared: SharedSlots) -> bool:
    rule, norms = bounds.config.renormalize, bounds.reference.gathered.sum(axis=1)
    return rule is not None and rule.eps > 0 and bool((norms < rule.eps * 2.0**24).any())


@event(
    "shared-slot-beside-a-tiny-norm",
    "a shared expert beside routed ones whose weights are next to nothing against epsilon",
    _behind(_norm_is_tiny),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    wants = {
        "shared_slots": _any,
        "renormalize": lambda rule: rule is not None and rule.eps > 0,
        "score and weights": lambda pair: pair == ("sigmoid", "scores"),
    }
    rows = [[-60.0 - n for n in range(8)]]
    for top_k in (2, 1):
        yield from table_cases(capabilities, rows, top_k=top_k, wants=wants)
    yield from table_cases(capabilities, rows, top_k=2, groups=(2, 1), wants=wants)
