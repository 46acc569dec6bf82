"""Notes of calls: whoever must survive a call is told before it is made, and after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from moe_routing.conformance.calls.case import AnyCase


class Notes(Protocol):
    """Takes down calls of a backend, each before it is made."""

    def calling(self, case: AnyCase) -> None:
        """Take down the case of the call that is about to be made."""

    def returned(self) -> None:
        """Take down that the call has returned."""


_notes: ContextVar[Notes | None] = ContextVar("notes", default=None)


def keep(notes: Notes | None) -> None:
    """Have every call of this context taken down in ``notes``, or in none."""
    _notes.set(notes)


@contextmanager
def noted(case: AnyCase) -> Iterator[None]:
    """Take ``case`` down before the block, and that it has ended after it."""
    notes = _notes.get()
    if notes is None:
        yield
        return
    notes.calling(case)
    try:
        yield
    finally:
        notes.returned()
