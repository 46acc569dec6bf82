"""Hints: which known bugs a failing adapter behaves like, for the end of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moe_routing.conformance.checking.results import ClauseResult
    from moe_routing.implementations import Capabilities


def hints(results: Sequence[ClauseResult], capabilities: Capabilities) -> tuple[str, ...]:
    """Return which known bugs a failing adapter behaves like; nothing where that goes wrong."""
    if all(each.status != "fail" for each in results):
        return ()
    from moe_routing.conformance.zoo.nearest import nearest  # imports every mutant

    try:
        return tuple(likeness.words for likeness in nearest(results, capabilities))
    except Exception:  # a hint is an ornament, for which no report is lost
        return ()
