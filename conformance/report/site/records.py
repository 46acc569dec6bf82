"""What the site knows: backends, their runs in order, and a result for each clause."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from moe_routing.conformance.checking.status import STATUSES, Status, StatusRow
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.clauses.registry import CHAPTERS

_TAKEN = ("index", "clauses")
_LONGEST = 60  # the letters of a file's name that come from a backend's


@dataclass(frozen=True, kw_only=True)
class Result:
    """One clause in one run of a backend; ``data`` is its part of the report."""

    id: str
    status: Status
    message: str
    data: Mapping[str, Any]

    @property
    def row(self) -> StatusRow:
        """What its status means."""
        return STATUSES[self.status]

    @property
    def chapter(self) -> str:
        """The chapter that its id begins with."""
        return self.id.partition(".")[0]

    @property
    def anchor(self) -> str:
        """Its place on the page of its run."""
        return re.sub(r"[^a-z0-9.-]", "-", self.id.lower())


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a backend; ``page`` is the file of its page, ``label`` names the report."""

    label: str
    version: str
    report: Mapping[str, Any]
    adapter: Mapping[str, Any]
    results: Mapping[str, Result]
    page: str = ""

    def link(self, result: Result) -> str:
        """Return where the story of one of its results is told."""
        return f"{self.page}#{result.anchor}"


Current = tuple[Run, Result]
"""A result, with the run that it is of."""


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One adapter on one device, with its runs, the oldest first; ``page`` is its file."""

    name: str
    device: str
    runs: tuple[Run, ...]
    page: str = ""

    @property
    def title(self) -> str:
        """Its name, with its device where that is not the CPU."""
        return self.name if self.device == "cpu" else f"{self.name} ({self.device})"

    @property
    def newest(self) -> Run:
        """Its last run."""
        return self.runs[-1]

    @property
    def current(self) -> dict[str, Current]:
        """The last result of each clause, among the runs of its newest version."""
        same = [run for run in self.runs if run.version == self.newest.version]
        found = {each.id: (run, each) for run in same for each in run.results.values()}
        return {id_: found[id_] for id_ in ordered(found)}


@dataclass(frozen=True, kw_only=True)
class Change:
    """A clause of a backend that is better or worse than in the run before."""

    backend: Backend
    run: Run
    was: Result
    now: Result

    @property
    def worse(self) -> bool:
        """Whether it got worse."""
        return self.now.row.rank > self.was.row.rank


def backends(reports: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Backend]:
    """Return the backends of labelled reports, the oldest first, by name and device."""
    runs: dict[tuple[str, str], list[Run]] = {}
    for label, report in reports:
        seen = Counter[tuple[str, str]]()
        for adapter in report["adapters"]:
            name, device = adapter["name"], str(adapter.get("device", "cpu"))
            seen[name, device] += 1
            twin = seen[name, device]  # numbered as `moe-routing diff` does
            key = name + (f"-{twin}" if twin > 1 else ""), device
            runs.setdefault(key, []).append(_run(label, report, adapter))
    found = [Backend(name=n, device=d, runs=tuple(runs[n, d])) for n, d in sorted(runs)]
    return list(_paged(found))


def changes(backend: Backend) -> list[Change]:
    """Return what the newest run of a backend changed, the worse first."""
    if len(backend.runs) < 2:
        return []
    before, run = backend.runs[-2:]
    found = [
        Change(backend=backend, run=run, was=before.results[id_], now=now)
        for id_, now in run.results.items()
        if id_ in before.results and before.results[id_].row.rank != now.row.rank
    ]
    return sorted(found, key=lambda each: not each.worse)


def ordered(ids: Mapping[str, Any]) -> list[str]:
    """Return ids in the order of the specification, unknown ones last."""
    place = {id_: number for number, id_ in enumerate(CLAUSES)}
    last = len(place)
    return sorted(ids, key=lambda i: (_place(i.partition(".")[0]), place.get(i, last), i))


def run_title(run: Run) -> str:
    """Return what tells a run from the others of its backend."""
    return f"{run.version} · {run.label}" if run.version else run.label


def chapters(found: Sequence[Backend]) -> list[str]:
    """Return the chapters that any backend has a clause of, in reading order."""
    named = {each.chapter for b in found for run in b.runs for each in run.results.values()}
    return sorted(named, key=lambda name: (_place(name), name))


def _place(chapter: str) -> int:
    return CHAPTERS.index(chapter) if chapter in CHAPTERS else len(CHAPTERS)


def _run(label: str, report: Mapping[str, Any], adapter: Mapping[str, Any]) -> Run:
    results = [
        Result(
            id=each["id"],
            status=cast(Status, each["status"]),
            message=each["message"],
            data=each,
        )
        for each in adapter["clauses"]
    ]
    by_id = {each.id: each for each in results}
    return Run(
        label=label,
        version=str(adapter["wraps"]["version"] or ""),
        report=report,
        adapter=adapter,
        results={id_: by_id[id_] for id_ in ordered(by_id)},
    )


def _paged(found: Sequence[Backend]) -> Iterator[Backend]:
    """Yield the backends with files of their own for themselves and their runs."""
    taken = set(_TAKEN)
    for each in found:
        slug = _slug(each.title, taken)
        taken.add(slug)
        runs = [replace(r, page=f"{slug}.{n}.html") for n, r in enumerate(each.runs, start=1)]
        yield replace(each, runs=tuple(runs), page=f"{slug}.html")


def _slug(name: str, taken: set[str]) -> str:
    """Return a name for a file that is safe everywhere, and no other's."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_LONGEST] or "backend"
    numbers = iter(range(2, len(taken) + 3))
    slug = plain
    while slug in taken:
        slug = f"{plain}-{next(numbers)}"
    return slug
