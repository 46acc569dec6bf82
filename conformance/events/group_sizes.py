"""Events of how many groups there are, how many are kept, and how large they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.again import cases_of
from moe_routing.conformance.events.registry import ROWS, event
from moe_routing.conformance.events.sizes import ladder
from moe_routing.conformance.generators.construct import table_cases
from moe_routing.conformance.generators.nonsense import ragged_counts
from moe_routing.conformance.generators.scenes import fitting_experts
from moe_routing.conformance.judge import Bounds
from moe_routing.implementations import Capabilities
from moe_routing.reference import Groups


@event(
    "group-smaller-than-top",
    "groups with fewer experts than their score sums",
    lambda b: (
        b.config.groups is not None
        and b.config.groups.count > 1
        and not b.config.groups.from_each
        and b.config.experts_per_group < b.config.groups.top
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for experts, kept, slots in ((4, 2, (2, 1)), (16, 8, (8, 4)), (64, 32, (32, 16))):
        size = fitting_experts(capabilities, experts)
        for top_k in slots:
            yield from table_cases(capabilities, ladder(2, size), top_k=top_k, groups=(size, kept))


@event(
    "one-group",
    "a single group",
    lambda b: b.config.groups is not None and b.config.groups.count == 1,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = ladder(2, fitting_experts(capabilities, 4))
    for top_k in (1, 2):  # one slot: as many as there are groups, which may be mistaken for it
        yield from table_cases(capabilities, rows, top_k=top_k, groups=(1, 1))


@event(
    "all-groups-kept",
    "several groups, all kept",
    lambda b: (
        b.config.groups is not None
        and not b.config.groups.from_each
        and b.config.groups.count == b.config.groups.kept > 1
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for top_k in (2, 1):
        yield from table_cases(capabilities, ROWS, top_k=top_k, groups=(2, 2))
        yield from table_cases(capabilities, ladder(2, 2), top_k=top_k, groups=(2, 2))


def _counted(
    slug: str,
    statement: str,
    experts: int,
    groups: tuple[int, int],
    test: Callable[[Groups, int], bool],
) -> None:
    """Register an event of groups and their size, shown by ``groups=(count, kept)``."""

    def occurs(bounds: Bounds) -> bool:
        found = bounds.config.groups
        return found is not None and test(found, bounds.config.experts_per_group)

    @event(slug, statement, occurs)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        fitting = fitting_experts(capabilities, experts)
        for top_k in (2, 1):
            yield from table_cases(capabilities, ladder(2, fitting), top_k=top_k, groups=groups)
        yield from table_cases(capabilities, ladder(2, 2), top_k=1, groups=(2, 1))


_counted("two-groups", "2 groups", 4, (2, 1), lambda groups, size: groups.count == 2)
_counted("eight-groups", "8 groups", 16, (8, 4), lambda groups, size: groups.count == 8)
_counted(
    "wide-groups",
    "several groups of 33 experts or more",
    68,
    (2, 1),
    lambda groups, size: groups.count > 1 and size >= 33,
)
_counted(
    "one-group-kept",
    "one of several groups kept",
    8,
    (4, 1),
    lambda groups, size: groups.kept == 1 < groups.count,
)


@event(
    "fewer-slots-than-groups",
    "fewer experts selected than groups kept, of more",
    lambda b: (
        b.config.groups is not None
        and b.config.top_k < b.config.groups.kept < b.config.groups.count
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for experts, groups, slots in ((8, (4, 3), (2, 1)), (64, (32, 31), (16, 8))):
        rows = ladder(2, fitting_experts(capabilities, experts))
        for top_k in slots:
            yield from table_cases(capabilities, rows, top_k=top_k, groups=groups)


_counted(
    "groups-excluded",
    "some of the groups are not kept",
    8,
    (4, 1),
    lambda groups, size: groups.kept < groups.count,
)
_counted(
    "several-groups-kept",
    "two groups or more kept, of more",
    8,
    (4, 2),
    lambda groups, size: 1 < groups.kept < groups.count,
)


@event(
    "groups-of-one",
    "as many groups as experts",
    lambda b: b.config.groups is not None and b.config.groups.count == b.config.num_experts > 1,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from cases_of("group-smaller-than-top", capabilities)


@event(
    "ragged-groups",
    "groups, of experts that another number of groups would leave ragged",
    lambda b: (
        b.config.groups is not None
        and b.inputs.num_tokens > 0
        and bool(ragged_counts(b.config.num_experts))
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for experts in (8, 5):
        rows = ladder(2, fitting_experts(capabilities, experts))
        for top_k in (2, 1):
            yield from table_cases(capabilities, rows, top_k=top_k, groups=(1, 1))


@event(
    "kept-groups-chosen-whole",
    "every expert of two kept groups or more selected, and others are not kept",
    lambda b: (
        b.config.groups is not None
        and 1 < b.config.groups.kept < b.config.groups.count
        and b.config.top_k == b.config.groups.kept * b.config.experts_per_group
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for experts, groups, top_k in ((8, (4, 2), 4), (3, (3, 2), 2)):
        rows = np.asarray(ladder(2, experts))[:, ::-1]  # no tie of equal fills leads there
        yield from table_cases(capabilities, rows, top_k=top_k, groups=groups)
