"""Events of groups that each give a share of the K experts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.registry import EVENTS, ROWS, event, selected
from moe_routing.conformance.generators.construct import table_cases
from moe_routing.conformance.judge import Bounds
from moe_routing.implementations import Capabilities

_EACH = {
    "groups": lambda rule: rule is not None and True in rule.from_each,
    "groups.from_each": lambda each: each,
}
_ROWS = [[2.0, 1.75, 1.5, 1.25, 0.5, 0.25, 0.0, -0.25], [-1.0, 0.0, 1.0, 0.5, 2.0, 3.0, 2.5, 1.5]]
_MORE = [[2.0 - n / 4 for n in range(8)] + [-n / 4 for n in range(8)]]


def _of_shares(test: Callable[[Bounds], bool]) -> Callable[[Bounds], bool]:
    """Return a test of what groups that each give a share show as well."""

    def occurs(bounds: Bounds) -> bool:
        groups = bounds.config.groups
        shared = groups is not None and groups.from_each and groups.count > 1
        return shared and bounds.inputs.num_tokens > 0 and test(bounds)

    return occurs


def _passes_over(bounds: Bounds) -> bool:
    least = selected(bounds, bounds.reference.biased).min(axis=1)
    left = bounds.reference.biased.copy()
    np.put_along_axis(left, bounds.reference.expert_ids, -np.inf, axis=1)
    return bool(((left.max(axis=1) > least) & bounds.only_reference).any())


def _share(bounds: Bounds) -> int:
    groups = bounds.config.groups
    return bounds.config.top_k // (groups.count if groups else 1)


@event(
    "share-passes-over-better",
    "a group gives an expert that is worse than one that another group keeps",
    _of_shares(_passes_over),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for top_k in (2, 4):
        yield from table_cases(capabilities, _ROWS, top_k=top_k, groups=(2, 2), wants=_EACH)
    yield from table_cases(capabilities, _ROWS, top_k=4, groups=(4, 4), wants=_EACH)
    yield from table_cases(capabilities, _MORE, top_k=8, groups=(2, 2), wants=_EACH)


@event(
    "share-of-one",
    "every group gives one of its experts",
    _of_shares(lambda b: _share(b) == 1 < b.config.experts_per_group),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from table_cases(capabilities, ROWS, top_k=2, groups=(2, 2), wants=_EACH)
    yield from table_cases(capabilities, _ROWS, top_k=4, groups=(4, 4), wants=_EACH)
    yield from table_cases(capabilities, _MORE, top_k=8, groups=(8, 8), wants=_EACH)


@event(
    "share-of-several",
    "every group gives several of its experts, and not all",
    _of_shares(lambda b: 1 < _share(b) < b.config.experts_per_group),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for top_k in (4, 6):
        yield from table_cases(capabilities, _ROWS, top_k=top_k, groups=(2, 2), wants=_EACH)
    yield from table_cases(capabilities, _MORE, top_k=8, groups=(2, 2), wants=_EACH)


def _biased(bounds: Bounds) -> bool:
    groups, bias = bounds.config.groups, bounds.inputs.selection_bias
    return groups is not None and groups.from_each and bias is not None and bool((bias != 0).any())


@event(
    "share-under-bias",
    "every group gives a share, with a selection bias that is not 0 everywhere",
    _biased,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    bias = [0.5, 1.0, -0.5, 0.25]
    for top_k in (2, 4):
        yield from table_cases(
            capabilities, ROWS, top_k=top_k, groups=(2, 2), wants=_EACH, selection_bias=bias
        )


@event(
    "share-biased",
    "the selection bias changes which experts a group gives",
    _of_shares(lambda b: EVENTS["bias-decides"].occurs(b)),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for top_k, count in ((2, 2), (4, 2), (4, 4)):
        yield from table_cases(
            capabilities,
            _ROWS,
            top_k=top_k,
            groups=(count, count),
            wants=_EACH,
            selection_bias=[0.0, 1.0, 0.0, 2.5, 1.0, 0.0, 0.0, 2.0],
        )
    bias = [0.0] * 8 + [2.5] * 8
    bias[7] = 3.0
    yield from table_cases(
        capabilities, _MORE, top_k=8, groups=(2, 2), wants=_EACH, selection_bias=bias
    )


@event(
    "share-tied",
    "two experts of a group tie exactly where its share ends",
    _of_shares(lambda b: EVENTS["tie-at-cut"].occurs(b)),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from _tied(capabilities)
    rows = [[1.0] * 8 + [2.0, 1.5, 1.0, 0.5, 0.25, 0.0, -0.5, -1.0]]
    yield from table_cases(capabilities, rows, top_k=8, groups=(2, 2), wants=_EACH)


def _tied(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[1.0, 1.0, 1.0, 0.0, 2.0, 1.5, 1.5, 1.5]]
    for top_k, count in ((2, 2), (4, 2), (4, 4)):
        yield from table_cases(capabilities, rows, top_k=top_k, groups=(count, count), wants=_EACH)


@event(
    "share-of-many-groups",
    "nine groups or more each give a share, and pass over better experts",
    _of_shares(lambda b: b.config.top_k // _share(b) > 8 and _passes_over(b)),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [np.arange(32.0)[::-1] / 8.0, np.arange(32.0) / 8.0]
    yield from table_cases(capabilities, rows, top_k=16, groups=(16, 16), wants=_EACH)


@event(
    "share-of-many-tokens",
    "every group gives a share to each of 257 tokens or more, and passes over better experts",
    _of_shares(lambda b: b.inputs.num_tokens >= 257 and _passes_over(b)),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for top_k, rows in ((2, _ROWS), (4, _ROWS), (8, _MORE)):
        table = np.tile(np.asarray(rows), (257, 1))[:257]
        yield from table_cases(capabilities, table, top_k=top_k, groups=(2, 2), wants=_EACH)
