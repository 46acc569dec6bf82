"""Witnesses of known divergences: read from their case files at once, or when first needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.cases.files import CaseError, load_case
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.known.regions import Region, check_region


class KnownError(Exception):
    """A known-divergences file cannot be used; the message says which entry and why."""


@dataclass(frozen=True, eq=False)
class Unread(Sequence[AnyCase]):
    """Witnesses that are read when the first of them is needed: a run needs few of those shipped.

    Errors of any use: those of ``read``.
    """

    read: Callable[[], tuple[AnyCase, ...]]

    @cached_property
    def _cases(self) -> tuple[AnyCase, ...]:
        return self.read()

    def __len__(self) -> int:
        return len(self._cases)

    @overload
    def __getitem__(self, index: int) -> AnyCase: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[AnyCase, ...]: ...

    def __getitem__(self, index: int | slice) -> AnyCase | tuple[AnyCase, ...]:
        return self._cases[index]


def read_witnesses(
    path: Path, where: str, names: Sequence[Any], clause: str, when: Region
) -> tuple[AnyCase, ...]:
    """Read the witnesses of an entry, each of which lies in its region. Errors: ``KnownError``.

    ``path`` is the file of the entry, ``where`` the entry in words.
    """
    try:
        witnesses = tuple(_witness(path, where, name) for name in names)
        for witness in witnesses:
            if not CLAUSES[clause].is_about(witness):
                raise ValueError(f"{clause} is not about the kind of case in its witness")
            check_region(when, witness)
    except (CaseError, ValueError) as error:
        raise KnownError(f"{where}: {error}") from error
    return witnesses


def _witness(path: Path, where: str, name: Any) -> AnyCase:
    if not isinstance(name, str):
        raise KnownError(f"{where}: witness is {name!r}, but should be a string, or a list of them")
    return load_case(path.parent / name)[0]
