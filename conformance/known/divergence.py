"""Known divergences: where a backend is known to differ from the specification, and why.

A TOML file lists them; each names its clause, a reason, a link, the region of cases it
covers (``when``), witnesses, cases that must still break the clause, and the other
clauses that it ``affects``. The region is left out of the search in all of them, so that
a known divergence neither costs time nor hides another one.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.cases.kinds import kind_of
from moe_routing.conformance.cases.whole import reason
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.known.regions import Region, holds, outlines
from moe_routing.conformance.known.witnesses import KnownError as KnownError
from moe_routing.conformance.known.witnesses import Unread, read_witnesses
from moe_routing.conformance.trial.base import AnyTrial
from moe_routing.implementations import shipped_known

_REQUIRED = ("id", "adapters", "clause", "reason", "link", "witness")
_OPTIONAL = ("affects", "devices", "when")
_HEADING = re.compile(r"^[ \t]*\[\[[ \t]*divergence[ \t]*\]\]", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, eq=False)
class Divergence:
    """One known divergence: its region is the cases for which everything in ``when`` holds.

    ``when`` maps a field of the configuration (``score``, ``groups.fill``), an axis of the
    inputs (``selection_bias``), ``dtype`` or ``tokens`` to the values it covers, and
    ``events`` to events of the case. Without ``when`` the region is every case. ``place``
    is where it is written, as ``file:line``; ``shipped`` says that it came with the suite, and
    is about shipped adapters alone. Several ``witnesses``, read from ``witness_files``, serve
    adapters that claim different things: each adapter is checked on those that it claims.
    ``devices`` are those on which it was seen, such as ``cpu``; without any it is on all.
    """

    id: str
    adapters: tuple[str, ...]
    clause: str
    reason: str
    link: str
    witnesses: Sequence[AnyCase]
    witness_files: tuple[Path, ...] = ()
    affects: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    when: Region = field(default_factory=dict)
    place: str = ""
    shipped: bool = False

    def is_on(self, device: str) -> bool:
        """Return whether it is known on a device, such as ``cpu`` or ``cuda:1``."""
        return not self.devices or device.partition(":")[0] in self.devices

    def touches(self, adapter: str, clause: str) -> bool:
        """Return whether its region is left out of the search of ``clause`` on ``adapter``."""
        globs = (self.clause, *self.affects)
        return adapter in self.adapters and any(fnmatch.fnmatch(clause, glob) for glob in globs)

    def covers(self, facts: Any, case: AnyCase) -> bool:
        """Return whether ``case`` lies in the region; ``facts`` as in ``holds``."""
        of = self.witnesses[0].kind
        if case.kind != of:
            contained = kind_of(case).contains
            return of in contained and holds(self.when, contained[of](facts), case.contained)
        return holds(self.when, facts, case)

    def outlines(self, case: AnyCase) -> bool:
        """Return whether ``case`` lies in the region but for its events: cheap, without facts."""
        of = self.witnesses[0].kind
        if case.kind == of:
            return outlines(self.when, case)
        return of in kind_of(case).contains and outlines(self.when, case.contained)


def _is_valid(config: Any) -> bool:
    """Whether a configuration, which may have been made without checks, passes them."""
    try:
        replace(config)
    except ValueError:
        return False
    return True


def covered(trial: AnyTrial, divergences: Iterable[Divergence]) -> bool:
    """Whether any divergence covers the case; none covers an invalid configuration."""
    if not trial.memo.once(trial.case.config, _is_valid):  # shared by the cases derived from one
        return False
    near = [divergence for divergence in divergences if divergence.outlines(trial.case)]
    return bool(near) and any(divergence.covers(trial.facts, trial.case) for divergence in near)


def known_divergences(files: Sequence[Path], device: str | None = None) -> list[Divergence]:
    """Read the given lists, or, with none given, the ones shipped with the adapters.

    Those are marked ``shipped``, and their witnesses are read when they are needed. With a
    ``device``, entries of other devices are left out. Errors: ``KnownError``.
    """
    later = not files
    known = [each for file in files or shipped_known() for each in load_known(file, later=later)]
    check_ids(known)  # over all the files
    known = [each for each in known if device is None or each.is_on(device)]
    return known if files else [replace(entry, shipped=True) for entry in known]


def load_known(path: Path, *, later: bool = False) -> list[Divergence]:
    """Read a known-divergences file; its witnesses ``later``. Errors: ``KnownError``, one line."""
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except OSError as error:
        raise KnownError(f"Cannot read {path}: {reason(error)}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise KnownError(f"Cannot read {path}: {error}") from error
    unknown = sorted(set(data) - {"divergence"})
    if unknown:
        raise KnownError(f"{path} has {unknown}, but only [[divergence]] tables are read")
    entries = data.get("divergence", [])
    if not isinstance(entries, list):
        raise KnownError(f"{path} has a [divergence] table, but entries are [[divergence]]")
    if others := [each for each in entries if not isinstance(each, dict)]:
        wrong = f"{path} has the divergence {others[0]!r}"
        raise KnownError(f"{wrong}, but entries are [[divergence]] tables")
    lines = heading_lines(text)
    places = [f"{path}:{line}" for line in lines]
    if len(lines) != len(entries):  # written in another way, as inline tables
        places = [str(path)] * len(entries)
    found = [_divergence(path, n, entry, places[n], later) for n, entry in enumerate(entries)]
    check_ids(found)
    return found


def check_ids(entries: Iterable[Divergence]) -> None:
    """Raise ``KnownError`` where two entries that are read together share an id."""
    places: dict[str, str] = {}
    for each in entries:
        if each.id in places:
            taken = f"{each.place} has the id {each.id!r}, which is taken by {places[each.id]}"
            raise KnownError(f"{taken}: use another")
        places[each.id] = each.place


def heading_lines(text: str) -> list[int]:
    """Return the numbers of the lines that begin an entry, from 1."""
    return [text.count("\n", 0, found.start()) + 1 for found in _HEADING.finditer(text)]


def _divergence(
    path: Path, number: int, entry: dict[str, Any], place: str, later: bool
) -> Divergence:
    where = f"{path}, divergence {entry.get('id', number + 1)!r}"
    _check_keys(where, entry)
    when = {key: tuple(_listed(value)) for key, value in entry.get("when", {}).items()}
    affects = tuple(_listed(entry.get("affects", [])))
    _check_clauses(where, entry["clause"], affects)
    names = _listed(entry["witness"])
    read = partial(read_witnesses, path, where, names, entry["clause"], when)
    return Divergence(
        id=entry["id"],
        adapters=tuple(_listed(entry["adapters"])),
        clause=entry["clause"],
        reason=entry["reason"],
        link=entry["link"],
        witnesses=Unread(read) if later else read(),
        witness_files=tuple(path.parent / name for name in names),
        affects=affects,
        devices=tuple(_listed(entry.get("devices", []))),
        when=when,
        place=place,
    )


def _check_keys(where: str, entry: dict[str, Any]) -> None:
    for name in _REQUIRED:
        if not entry.get(name):
            raise KnownError(f"{where}: {name} is missing or empty; every entry needs one")
    unknown = sorted(set(entry) - {*_REQUIRED, *_OPTIONAL})
    if unknown:
        raise KnownError(
            f"{where}: unknown keys {unknown}; expected only {[*_REQUIRED, *_OPTIONAL]}"
        )
    for name in ("id", "clause", "reason", "link"):
        if not isinstance(entry[name], str):
            raise KnownError(f"{where}: {name} is {entry[name]!r}, but should be a string")
    for name in ("adapters", "affects", "devices"):
        if not all(isinstance(each, str) for each in _listed(entry.get(name, []))):
            raise KnownError(f"{where}: {name} is {entry[name]!r}, but should be strings")
    if not isinstance(entry.get("when", {}), dict):
        raise KnownError(f"{where}: when is {entry['when']!r}, but should be a table")


def _check_clauses(where: str, clause: str, affects: tuple[str, ...]) -> None:
    if clause not in CLAUSES:
        raise KnownError(f"{where}: unknown clause {clause!r}{_nearest(clause)}")
    for glob in affects:
        if glob not in CLAUSES and not fnmatch.filter(CLAUSES, glob):
            raise KnownError(f"{where}: affects {glob!r} matches no clause{_nearest(glob)}")


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, CLAUSES, n=1)
    return f"; did you mean {near[0]}?" if near else "; `moe-routing clauses` lists all"


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
