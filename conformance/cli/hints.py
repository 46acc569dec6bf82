"""Hints: the known bugs that a failing adapter behaves like, for the end of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moe_routing.conformance.checking.results import ClauseResult
    from moe_routing.implementations import Capabilities


def hints(results: Sequence[ClauseResult], capabilities: Capabilities) -> tuple[str, ...]:
    """Return what every call has in common, or else the known bug with the same symptoms.

    Empty if the hints themselves fail.
    """
    if all(each.status not in ("fail", "error") for each in results):
        return ()
    from moe_routing.conformance.zoo.nearest import nearest  # imports every mutant
    from moe_routing.conformance.zoo.throughout import throughout

    try:
        if (words := throughout(results, capabilities)) is not None:
            return (words,)
        likeness = nearest(results, capabilities)
        return () if likeness is None else (likeness.words,)
    except Exception:  # a hint is optional: it must not cost the report
        return ()
