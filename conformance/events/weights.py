"""Events of the weights: renormalisation and scales."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.again import cases_of
from moe_routing.conformance.events.registry import ROWS, event
from moe_routing.conformance.generators.construct import table_cases
from moe_routing.conformance.generators.scenes import fitting_experts
from moe_routing.conformance.judge import Bounds
from moe_routing.conformance.judge.selection import chosen_mask
from moe_routing.implementations import Capabilities
from moe_routing.reference import Renormalize
from moe_routing.reference.formats import Bools, Floats


def experts_scaled_apart(bounds: Bounds) -> bool:
    """Return whether experts have scales of their own, and a selected one's is negative."""
    scales = bounds.inputs.per_expert_scale
    if scales is None or len(np.unique(scales)) == 1:
        return False
    return bool((scales[bounds.reference.expert_ids] < 0).any())


@event(
    "experts-scaled-apart",
    "experts with scales of their own, one of them negative",
    experts_scaled_apart,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    scales = [0.5, 2.0, -1.0, -1.5]
    for top_k in (2, 1):
        yield from table_cases(
            capabilities,
            ROWS[:1],
            top_k=top_k,
            wants={"optional arrays": lambda parts: "per_expert_scale" in parts},
            per_expert_scale=scales,
        )


@event(
    "weights-apart",
    "weights of one token that differ from each other",
    lambda b: bool((np.ptp(b.reference.weights[b.judged], axis=1) > 0).any()),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from cases_of("any-case", capabilities)


@event(
    "renormalized",
    "weights renormalised over two experts or more",
    lambda b: b.config.renormalize is not None and b.config.top_k > 1 and b.inputs.num_tokens > 0,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    wants = {"renormalize": lambda rule: rule is not None}
    yield from table_cases(capabilities, ROWS, top_k=2, wants=wants)


@event(
    "renormalized-alone",
    "the one weight of a token, a score that is renormalised by itself",
    lambda b: (
        b.config.renormalize is not None
        and b.config.weights_from.endswith("scores")
        and b.config.top_k == 1
        and b.inputs.num_tokens > 0
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from table_cases(
        capabilities,
        ROWS,
        top_k=1,
        wants={
            "renormalize": lambda rule: rule is not None,
            "score and weights": lambda pair: pair[1].endswith("scores"),
        },
    )


@event(
    "not-renormalized",
    "weights that are scores",
    lambda b: b.config.renormalize is None and b.inputs.num_tokens > 0,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for top_k in (2, 1):
        yield from table_cases(capabilities, ROWS, top_k=top_k, wants={"renormalize": None})


def _norm_may_be_tiny(bounds: Bounds) -> bool:
    """Return whether a norm may be tiny: the reference's if certain, else the least permitted."""
    rule = bounds.config.renormalize
    if rule is None:
        return False
    may = _may_be_selected(bounds)
    certain = bounds.reference.gathered.sum(axis=1)
    ranked = np.sort(np.where(may, bounds.reference.scores, np.inf), axis=1)
    least = ranked[:, : bounds.config.top_k].sum(axis=1)
    norms = np.where(bounds.only_reference, certain, np.minimum(certain, least))
    return bool((norms[bounds.judged & _norm_may_decide(bounds, rule, may)] < 1e-12).any())


def _may_be_selected(bounds: Bounds) -> Bools:
    """Return which experts ``[T, E]`` may be selected: with groups and a choice, all of them."""
    competing, top_k = bounds.from_reference.competing, bounds.config.top_k
    may = np.ones(bounds.reference.scores.shape, dtype=bool)
    if bounds.config.groups is None:
        may = competing.hi >= -np.sort(-competing.lo, axis=1)[:, top_k - 1 : top_k]
    chosen = chosen_mask(bounds.reference.expert_ids, bounds.config.num_experts)
    return np.where(bounds.only_reference[:, None], chosen, may)


def _norm_may_decide(bounds: Bounds, rule: Renormalize, may: Bools) -> Bools:
    """Return which tokens ``[T]`` may have a norm above 0: if it is 0, any weight is right."""
    gathers = "scores" in bounds.config.weights_from
    if max(rule.eps, rule.floor) > 0.0 or not gathers:
        return np.ones(len(may), dtype=bool)
    beyond_0: Bools = bounds.from_reference.scores.numerators.lo > 0.0
    return np.asarray((may & beyond_0).any(axis=1))


@event(
    "tiny-norm",
    "selected scores that may sum to less than 1e-12, and still decide the weights",
    _norm_may_be_tiny,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    wants = {
        "renormalize": lambda rule: rule is not None,
        "score and weights": lambda pair: "softmax" not in pair[0],
    }
    for top_k in (2, 1):
        yield from table_cases(
            capabilities, [[-40.0, -44.0, -48.0, -60.0]], top_k=top_k, wants=wants
        )


def _norms(bounds: Bounds, rule: Renormalize) -> Floats:
    """Return the norms of the weights at the reference's ids, where only those are right."""
    powers = np.abs(bounds.reference.gathered) ** rule.order
    norms: Floats = powers.sum(axis=1) ** (1.0 / rule.order)
    return norms[bounds.only_reference]


def _norm_is(slug: str, statement: str, test: Callable[[Renormalize, Floats], Bools]) -> None:
    """Register an event of what is added to the norm, or bounds it below."""

    def occurs(bounds: Bounds) -> bool:
        rule, hashed = bounds.config.renormalize, bounds.inputs.expert_table is not None
        return rule is not None and not hashed and bool(test(rule, _norms(bounds, rule)).any())

    @event(slug, statement, occurs)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        wants = {
            "renormalize": lambda rule: rule is not None and test(rule, np.array(1e-30)).any(),
            "score and weights": lambda pair: pair == ("sigmoid", "scores"),
        }
        late = {**wants, "score and weights": lambda pair: pair[1] == "sigmoid_of_selected"}
        for top_k, wanted in product((2, 1), (wants, late)):
            for low in (-70.0, -40.0, -16.0):
                rows = np.array([[0.0, -2.0, -4.0, -8.0]]) + low
                yield from table_cases(capabilities, rows, top_k=top_k, wants=wanted)
        softmax = {**wants, "score and weights": lambda pair: pair == ("softmax", "scores")}
        yield from table_cases(
            capabilities,
            [[0.0, -80.0, -82.0, -84.0]],
            top_k=1,
            wants={**softmax, "selection_bias": lambda place: place != "none"},
            selection_bias=[0.0, 2.0, 0.0, 0.0],
        )


_norm_is(
    "norm-below-floor",
    "a norm that the renormalisation's floor raises",
    lambda rule, norms: norms + rule.eps < rule.floor,
)
_norm_is(
    "norm-beside-epsilon",
    "a norm that the renormalisation's epsilon changes by an eighth or more",
    lambda rule, norms: (norms / 8 <= rule.eps) & (rule.eps > 0.0),
)


@event(
    "norm-of-another-order",
    "a norm over two experts or more, of an order that is neither 1 nor 2",
    lambda b: (
        b.config.renormalize is not None
        and b.config.renormalize.order not in (1.0, 2.0)
        and b.config.top_k > 1
        and b.inputs.num_tokens > 0
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    wants = {"renormalize": lambda rule: rule is not None and rule.order not in (1.0, 2.0)}
    yield from table_cases(capabilities, ROWS, top_k=2, wants=wants)


@event(
    "floor-beside-epsilon",
    "norms that the renormalisation's floor raises, and others only without its epsilon",
    lambda b: (
        b.config.renormalize is not None
        and b.config.renormalize.eps > 0.0
        and (norms := _norms(b, b.config.renormalize)).size > 0
        and bool((norms + b.config.renormalize.eps < b.config.renormalize.floor).any())
        and bool((_between(b.config.renormalize, norms)).any())
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    wants = {
        "renormalize": lambda rule: rule is not None and min(rule.eps, rule.floor) > 0.0,
        "score and weights": lambda pair: pair == ("sigmoid", "scores"),
    }
    for experts, high, top_k in product((4, 12), (-0.5, -1.0, -2.0, -2.5), (2, 1)):
        rows = np.array([[high], [-4.0]]) - np.arange(fitting_experts(capabilities, experts)) / 16
        yield from table_cases(capabilities, rows, top_k=top_k, wants=wants)


def _between(rule: Renormalize, norms: Floats) -> Bools:
    """Return which norms are below the floor, and above it with the epsilon added."""
    return (norms < rule.floor) & (rule.floor < norms + rule.eps)


def _scaled(slug: str, statement: str, test: Callable[[float], bool]) -> None:
    @event(slug, statement, lambda b: test(b.config.scale) and b.inputs.num_tokens > 0)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        for top_k in (2, 1):
            yield from table_cases(capabilities, ROWS, top_k=top_k, wants={"scale": test})


_scaled(
    "scaled", "a routed scaling factor other than 0 and 1", lambda scale: scale not in (0.0, 1.0)
)
_scaled("scaled-by-zero", "a routed scaling factor of 0", lambda scale: scale == 0.0)
