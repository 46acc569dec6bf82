"""Events of selection: ties, winners, load."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.again import cases_of
from moe_routing.conformance.events.registry import EVENTS, FAMILIES, ROWS, event
from moe_routing.conformance.events.sizes import ladder
from moe_routing.conformance.generators.construct import table_cases
from moe_routing.conformance.generators.scenes import fitting_experts
from moe_routing.conformance.judge import Bounds
from moe_routing.conformance.judge.selection import in_blocks
from moe_routing.implementations import Capabilities
from moe_routing.reference.formats import Bools, Floats, Ids


def _ranked(bounds: Bounds) -> Floats:
    """Return the competing values of judged tokens, greatest first."""
    return -np.sort(-in_blocks(bounds.config.groups, _competing(bounds)), axis=1)


def _competing(bounds: Bounds) -> Floats:
    return bounds.reference.competing[bounds.judged]


def _slots(bounds: Bounds) -> int:
    """Return K, or what every group gives of it."""
    groups = bounds.config.groups
    return bounds.config.top_k // (groups.count if groups and groups.from_each else 1)


def _ties_at_cut(bounds: Bounds) -> bool:
    k, ranked = _slots(bounds), _ranked(bounds)
    if bounds.config.top_k >= bounds.config.num_experts or bounds.inputs.expert_table is not None:
        return False
    return bool((ranked[:, k - 1] == ranked[:, k]).any())


@event("tie-at-cut", "two experts tie exactly where selection cuts", _ties_at_cut)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from table_cases(capabilities, [[2.0, 1.0, 1.0, 0.0], [0.5] * 4], top_k=2)
    yield from table_cases(capabilities, [[2.0, 1.0, 1.0, 0.0], [0.5] * 4], top_k=1)


def _tie_of(slug: str, statement: str, sign: float) -> None:
    def occurs(bounds: Bounds) -> bool:
        k, groups = _slots(bounds), bounds.config.groups
        if (
            bounds.config.top_k >= bounds.config.num_experts
            or bounds.inputs.expert_table is not None
        ):
            return False
        competing = in_blocks(groups, _competing(bounds))
        operated = in_blocks(groups, bounds.reference.operated[bounds.judged])
        pair = np.argsort(-competing, axis=1, kind="stable")[:, k - 1 : k + 1]
        values = np.take_along_axis(competing, pair, axis=1)
        logits = np.take_along_axis(operated, pair, axis=1)
        return bool(((values[:, 0] == values[:, 1]) & (sign * logits > 0).all(axis=1)).any())

    @event(slug, statement, occurs)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        rows = [[1.5, 1.0, 1.0, 0.25]] if sign > 0 else [[-0.25, -1.0, -1.0, -1.5]]
        for top_k in (2, 1):
            yield from table_cases(capabilities, rows, top_k=top_k)
            yield from table_cases(capabilities, np.sign(rows), top_k=top_k)


_tie_of("tie-of-positive-logits", "two experts of positive logits tie at the cut", 1.0)
_tie_of("tie-of-negative-logits", "two experts of negative logits tie at the cut", -1.0)


def _all_tie(least: int) -> None:
    """Register ``least`` experts or more that all tie, two more than blocks of threads hold."""

    def occurs(bounds: Bounds) -> bool:
        few = bounds.config.top_k < bounds.config.num_experts >= least
        tied = (np.ptp(_competing(bounds), axis=1) == 0.0).any() if few else False
        return bool(tied) and bounds.inputs.expert_table is None

    @event(f"all-tie:{least}-experts", f"{least:,} experts or more, which all tie", occurs)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        rows = np.ones((2, fitting_experts(capabilities, least)))
        for top_k in (8, 2, 1):
            yield from table_cases(capabilities, rows, top_k=top_k)


FAMILIES["all-tie"] = (
    "all of many experts tie, across the lanes and blocks of threads that hold them"
)
for _least in (66, 258, 1026):
    _all_tie(_least)


@event(
    "clear-winners",
    "tokens whose right set of experts is unique",
    lambda b: bool(b.only_reference.any()) and b.config.top_k < b.config.num_experts,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from table_cases(capabilities, ROWS, top_k=2)
    yield from table_cases(capabilities, ROWS, top_k=1)


def _winner_above(least: int) -> None:
    @event(
        f"winner-above-{least}",
        f"an expert with an id above {least} wins",
        lambda b: bool((b.reference.expert_ids > least).any()),
    )
    def _(capabilities: Capabilities) -> Iterator[Case]:
        size = least + 1 + (least + 1) % 2 + 2
        rows = np.zeros((2, size), np.float32)
        rows[0, -1], rows[0, 0], rows[1, least + 1], rows[1, 1] = 4.0, 3.0, 4.0, 3.0
        for top_k in (2, 1):
            yield from table_cases(capabilities, rows, top_k=top_k)


for _least in (31, 127, 255, 511):
    _winner_above(_least)


def _winner_in(dtype: str, least: int) -> None:
    above = EVENTS[f"winner-above-{least}"]

    def occurs(bounds: Bounds) -> bool:
        return bounds.inputs.dtype == dtype and above.occurs(bounds)

    @event(f"winner:{least}-{dtype}", f"{above.statement}, with inputs in {dtype}", occurs)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        if dtype in capabilities.dtypes:
            yield from cases_of(above.slug, replace(capabilities, dtypes=(dtype,)))


FAMILIES["winner"] = "an id that 8 or 9 bits do not hold wins, in every dtype"
for _least in (255, 511):
    for _dtype in ("float32", "bfloat16", "float16"):
        _winner_in(_dtype, _least)


@event(
    "every-expert-wins",
    "every expert wins for some token",
    lambda b: len(np.unique(b.reference.expert_ids)) == b.config.num_experts > b.config.top_k,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for experts in (5, 6, 8, 16, fitting_experts(capabilities, 3)):
        rows = np.where(np.eye(experts), 3.0, 0.25 * (np.arange(experts) % 3))
        for top_k in (1, 2):
            yield from table_cases(capabilities, rows, top_k=top_k)


def _loaded(slug: str, statement: str, place: int, test: Callable[[Bounds], bool]) -> None:
    """Register an event of the experts' load, shown by a crowd at the expert ``place``."""

    @event(slug, statement, lambda b: b.inputs.num_tokens > 1 and test(b))
    def _(capabilities: Capabilities) -> Iterator[Case]:
        size = fitting_experts(capabilities, 4)
        rows = ladder(size, size)
        rows[:, place], rows[:, 1] = size, size / 2
        for top_k in (2, 1):
            yield from table_cases(capabilities, rows, top_k=top_k)
            row = [place % size, *range(1, top_k)]
            yield from table_cases(
                capabilities, rows, top_k=top_k, expert_table=[row], token_ids=[0] * size
            )


def _all_to(bounds: Bounds, expert: int) -> bool:
    few = bounds.config.top_k < bounds.config.num_experts
    return few and bool((bounds.reference.expert_ids == expert).any(axis=1).all())


_loaded("all-to-first", "every token selects the first expert", 0, lambda b: _all_to(b, 0))
_loaded(
    "all-to-last",
    "every token selects the last expert",
    -1,
    lambda b: _all_to(b, b.config.num_experts - 1),
)
_loaded(
    "idle-expert",
    "as many routes as experts or more, and an expert without any",
    0,
    lambda b: (
        len(np.unique(b.reference.expert_ids))
        < b.config.num_experts
        <= b.inputs.num_tokens * b.config.top_k
    ),
)


def _crowds(
    slug: str,
    statement: str,
    winners: Callable[[int], Ids],
    together: Callable[[Ids, int], Bools],
) -> None:
    """Register an event of a token whose experts are ``together``, as ``winners`` are."""

    def occurs(bounds: Bounds) -> bool:
        ids, experts = bounds.reference.expert_ids[bounds.only_reference], bounds.config.num_experts
        many = bounds.config.top_k >= 4 and experts >= 128
        return many and bounds.inputs.expert_table is None and bool(together(ids, experts).any())

    @event(slug, statement, occurs)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        for experts in (256, 128):
            size = fitting_experts(capabilities, experts)
            rows, best = ladder(2, size) / 64.0, winners(size)
            for row, start in zip(rows, (0, size - 1 - int(best.max())), strict=True):
                row[(best + start) % size] = 6.0 + np.arange(len(best)) / 4.0
            for top_k in (8, 6, 4):
                yield from table_cases(capabilities, rows, top_k=top_k)


def _most_in_a_lane(ids: Ids, experts: int) -> Bools:
    """Return where as many experts as may be are in the lane of the first, of 32 lanes."""
    alike = (ids % 32 == ids[:, :1] % 32).sum(axis=1)
    return np.asarray(alike >= min(ids.shape[1], experts // 32))


_crowds(
    "winners-in-one-lane",
    "four experts of a token or more are 32 apart, as many as may be",
    lambda size: np.arange(8) * 32 % size + np.arange(8) * 32 // size,
    _most_in_a_lane,
)
_crowds(
    "winners-side-by-side",
    "four experts of a token or more, all side by side",
    lambda size: np.arange(8),
    lambda ids, experts: np.asarray(np.ptp(ids, axis=1) < ids.shape[1]),
)
