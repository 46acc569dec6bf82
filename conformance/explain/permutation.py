"""Why a permutation is wrong, in words: the call, the route, its expert's segment, the rows."""

from __future__ import annotations

from collections.abc import Iterator

from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.explain.numbers import show
from moe_routing.conformance.judge.permutation import Breach, Due, Permuted
from moe_routing.reference.permutation import PADDING

_AROUND = 3
"""The rows that are shown on each side of the one that went wrong."""


def permutation_failure(
    law: str, due: Due, answer: Permuted, breach: Breach, layout: str
) -> Failure:
    """Return the failure of one law at one place, with its story."""
    token = None if breach.route is None else breach.route // due.routes.top_k
    return Failure(
        stage=law,
        token=token,
        summary=breach.words,
        details=tuple(_story(due, answer, breach, layout)),
    )


def call_line(due: Due, layout: str) -> str:
    """Return the sizes and the options of a call, and the layout of its answer."""
    routes, config = due.routes, due.config
    return (
        f"T={routes.num_tokens} (E={config.num_experts} K={routes.top_k}): align={config.align}, "
        f"empty_takes={config.empty_takes}, order={config.order}; answered in {layout}"
    )


def _story(due: Due, answer: Permuted, breach: Breach, layout: str) -> Iterator[str]:
    yield call_line(due, layout)
    if breach.route is not None and 0 <= breach.route < due.num_routes:
        token, slot = divmod(breach.route, due.routes.top_k)
        weight = show(due.routes.weights[token, slot])
        where = f"to expert {due.experts[breach.route]}, weight {weight}"
        told = where if due.present[breach.route] else "absent"
        yield f"route     {due.named(breach.route)}: {told}"
    if breach.expert is not None and 0 <= breach.expert < due.config.num_experts:
        yield from _segment(due, answer, breach.expert)
    if breach.row is not None:
        yield from _rows(due, answer, breach.row)


def _segment(due: Due, answer: Permuted, expert: int) -> Iterator[str]:
    starts, counts = answer.permutation.starts, answer.permutation.counts
    yield (
        f"segment   expert {expert}: answered rows {starts[expert]} to {starts[expert + 1]}, "
        f"{counts[expert]} routes;"
    )
    yield f"{'':10}due {due.sizes[expert]} rows, {due.counts[expert]} routes"


def _rows(due: Due, answer: Permuted, row: int) -> Iterator[str]:
    rows, owner = answer.permutation.rows, answer.expert_of_row
    yield f"rows      {'row':>6} {'segment of':>10}   holds"
    for near in range(max(0, row - _AROUND), min(rows.size, row + _AROUND + 1)):
        mark = "*" if near == row else " "
        segment = owner[near] if owner[near] >= 0 else "none"
        yield f"{'':10}{mark}{near:>5} {segment:>10}   {_held(due, int(rows[near]))}"


def _held(due: Due, route: int) -> str:
    if route == PADDING:
        return "padding"
    if not 0 <= route < due.num_routes:
        return f"{route}, which is no route"
    expert = due.experts[route]
    return f"{due.named(route)}, {f'of expert {expert}' if expert >= 0 else 'absent'}"
