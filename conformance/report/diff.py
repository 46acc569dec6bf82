"""The difference of two reports: what got worse, better, vanished, or ran fewer cases."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from moe_routing.conformance.cases.whole import reason
from moe_routing.conformance.checking.status import STATUSES
from moe_routing.conformance.report.form import check_report

Kind = Literal["worse", "fixed", "fewer", "vanished", "better", "new"]
RED: tuple[Kind, ...] = ("worse", "fixed", "fewer", "vanished")
"""The kinds of change that turn a gate red."""


class ReportError(Exception):
    """A report cannot be read, or not be compared; the message says which and why."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One clause on one adapter that is not as it was; without a clause, a whole adapter."""

    kind: Kind
    adapter: str
    clause: str
    words: str

    def __str__(self) -> str:
        return f"{self.kind:<9} {self.adapter} {self.clause}: {self.words}"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Every change between two reports, and how many clauses are as they were."""

    changes: tuple[Change, ...]
    same: int
    partial: bool = False

    @property
    def red(self) -> bool:
        """Whether a gate should stop this."""
        return self.partial or any(change.kind in RED for change in self.changes)

    def lines(self) -> list[str]:
        """Format the changes, red ones first, with the counts last."""
        order = [*RED, "better", "new"]
        changes = sorted(self.changes, key=lambda change: order.index(change.kind))
        counts = Counter(change.kind for change in changes)
        words = [f"{counts[kind]} {kind}" for kind in order if counts[kind]]
        notes = ["the new report is of an interrupted run"] if self.partial else []
        return [*map(str, changes), *notes, ", ".join([*words, f"{self.same} the same"])]


def load_report(path: Path) -> dict[str, Any]:
    """Read a report. Errors: ``ReportError``, in one line."""
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        check_report(report)
    except (OSError, ValueError, RecursionError) as error:
        raise ReportError(f"Cannot read the report {path}: {reason(error)}") from error
    return report


def compare(
    old: dict[str, Any], new: dict[str, Any], *, clauses: set[str] | None = None
) -> Difference:
    """Compare two reports, in some ``clauses`` or in all. Errors: as ``check_alike``."""
    check_alike(old, new)
    before, after = _clauses(old, clauses), _clauses(new, clauses)
    changes = tuple(_changes(before, after))
    moved = sum(change.kind not in ("vanished", "new") for change in changes)
    return Difference(
        changes=changes,
        same=len(before.keys() & after.keys()) - moved,
        partial=bool(new.get("partial")),
    )


def check_alike(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise ``ReportError`` where ``old`` cannot be compared with a run like ``new``.

    It is of another profile or number of examples, or of an interrupted run.
    """
    for name in ("profile", "max_examples"):
        if old.get(name) != new.get(name):
            raise ReportError(
                f"Cannot compare a report of {name}={old.get(name)!r} with one of "
                f"{name}={new.get(name)!r}: run both with the same {name}"
            )
    if old.get("partial"):
        raise ReportError(
            "Cannot compare with a report of an interrupted run: make one of a complete run"
        )


def _clauses(
    report: dict[str, Any], wanted: set[str] | None
) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the clauses of a report, by adapter and id; namesakes are numbered."""
    found, seen = {}, Counter[str]()
    for adapter in report["adapters"]:
        seen[adapter["name"]] += 1
        twin = seen[adapter["name"]]
        name = adapter["name"] + (f"-{twin}" if twin > 1 else "")
        for each in adapter["clauses"]:
            if wanted is None or each["id"] in wanted:
                found[name, each["id"]] = each
    return found


def _changes(
    before: dict[tuple[str, str], dict[str, Any]], after: dict[tuple[str, str], dict[str, Any]]
) -> Iterator[Change]:
    for (adapter, clause), old in before.items():
        new = after.get((adapter, clause))
        kind, words = ("vanished", f"was {old['status']}") if new is None else _change(old, new)
        if kind is not None:
            yield Change(kind=kind, adapter=adapter, clause=clause, words=words)
    for (adapter, clause), new in after.items():
        if (adapter, clause) not in before:
            yield Change(kind="new", adapter=adapter, clause=clause, words=new["status"])


def _change(old: dict[str, Any], new: dict[str, Any]) -> tuple[Kind | None, str]:
    was, now = old["status"], new["status"]
    words = f"{was} -> {now}" + (f": {new['message']}" if new["message"] else "")
    if now == "fixed" and was != "fixed":
        return "fixed", words
    if STATUSES[now].rank != STATUSES[was].rank:
        return ("worse" if STATUSES[now].rank > STATUSES[was].rank else "better"), words
    cases = [each["constructed"] + each["examples"] for each in (old, new)]
    if STATUSES[was].held and cases[1] < cases[0]:
        return "fewer", f"{cases[0]} -> {cases[1]} cases"
    return None, ""
