"""Notes of calls: each is recorded before it is made and after it, in case it ends the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from moe_routing.conformance.calls.case import AnyCase


class Notes(Protocol):
    """Records calls of a backend, each before it is made."""

    def calling(self, case: AnyCase) -> None:
        """Record the case of the call that is about to be made."""

    def returned(self) -> None:
        """Record that the call has returned."""


_notes: ContextVar[Notes | None] = ContextVar("notes", default=None)


def record_in(notes: Notes | None) -> None:
    """Record every call of this context in ``notes``; None records none."""
    _notes.set(notes)


@contextmanager
def noted(case: AnyCase) -> Iterator[None]:
    """Record ``case`` before the block, and after it that the call has returned."""
    notes = _notes.get()
    if notes is None:
        yield
        return
    notes.calling(case)
    try:
        yield
    finally:
        notes.returned()
