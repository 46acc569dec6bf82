"""The statuses of a clause: what each means, how bad it is, and how it is shown, in one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal[
    "pass",
    "fail",
    "known",
    "fixed",
    "error",
    "crash",
    "timeout",
    "unsupported",
    "inconclusive",
]


@dataclass(frozen=True, kw_only=True)
class StatusRow:
    """One status: ``meaning`` for the docs; ``rank``, the higher the worse, for comparisons.

    ``green`` says that it keeps the exit code at 0, ``broken`` that a backend did not get a
    case right, ``held`` that the clause was checked and held, known divergences aside.
    ``counted`` is the word after a count. ``style`` is the colour in a terminal, ``glyph`` the
    sign where there may be none; ``junit`` is the element of JUnit's XML, None for a pass.
    """

    meaning: str
    rank: int
    counted: str
    style: str
    glyph: str
    junit: Literal["skipped", "failure", "error"] | None
    green: bool = False
    broken: bool = False
    held: bool = False


STATUSES: dict[Status, StatusRow] = {
    "pass": StatusRow(
        meaning="every case was right, and every reachable condition of the clause was seen",
        rank=0,
        counted="passed",
        style="green",
        glyph="✓",
        junit=None,
        green=True,
        held=True,
    ),
    "fail": StatusRow(
        meaning="an answer that the specification does not permit, or one that changed when the "
        "same call was repeated",
        rank=4,
        counted="failed",
        style="bold red",
        glyph="✗",
        junit="failure",
        broken=True,
    ),
    "known": StatusRow(
        meaning="a listed divergence whose witness still fails, and nothing failed outside its "
        "region; also a clause that it affects, where the regions leave no case to run",
        rank=1,
        counted="known",
        style="yellow",
        glyph="≈",
        junit="skipped",
        green=True,
        held=True,
    ),
    "fixed": StatusRow(
        meaning="a listed divergence whose witness now passes: remove the entry, at the line "
        "that the message names",
        rank=3,
        counted="fixed",
        style="bold red",
        glyph="↑",
        junit="failure",
    ),
    "error": StatusRow(
        meaning="the backend raised on a call that it claims, returned an unknown layout, or "
        "replaced functions that the suite computes with; or the suite itself failed, and says so",
        rank=5,
        counted="errored",
        style="bold red",
        glyph="!",
        junit="error",
        broken=True,
    ),
    "crash": StatusRow(
        meaning="the adapter's process, or one that it runs its backend in, ended (a signal, an "
        "exit), or took more memory than it may",
        rank=7,
        counted="crashed",
        style="bold red",
        glyph="!",
        junit="error",
        broken=True,
    ),
    "timeout": StatusRow(
        meaning="no answer in time; the adapter's process was ended",
        rank=6,
        counted="timed out",
        style="bold red",
        glyph="!",
        junit="error",
        broken=True,
    ),
    "unsupported": StatusRow(
        meaning="the claims, methods or layout of the backend leave no case to run; it does not "
        "count as a pass",
        rank=2,
        counted="unsupported",
        style="dim",
        glyph="-",
        junit="skipped",
        green=True,
    ),
    "inconclusive": StatusRow(
        meaning="a condition that the clause requires, and your claims allow, never came up: no "
        "verdict; in `replay`, there is nothing in the case for the clause to check",
        rank=3,
        counted="inconclusive",
        style="magenta",
        glyph="?",
        junit="error",
    ),
}
"""Every status, in the order of ``Status``."""
