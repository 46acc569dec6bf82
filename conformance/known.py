"""Known divergences: what a backend is known to do otherwise, why, and where exactly.

A TOML file lists them; each names its clause, a reason, a link, the region of cases it
covers (``when``), a witness, a case that must still break the clause, and the other
clauses that it ``affects``. The region is left out of the search in all of them, so that
a known divergence neither costs time nor hides another one.
"""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from moe_routing.conformance.case import PARTS, Case, CaseError, SharedCase, load_case
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.events import EVENTS
from moe_routing.conformance.judge import Bounds
from moe_routing.implementations.capabilities import INPUT_AXES

_REQUIRED = ("id", "adapters", "clause", "reason", "link", "witness")
_OPTIONAL = ("affects", "when")


class KnownError(Exception):
    """A known-divergences file cannot be used; the message says which entry and why."""


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """One known divergence: its region is the cases for which everything in ``when`` holds.

    ``when`` maps a field of the configuration (``score``, ``groups.fill``), an axis of the
    inputs (``selection_bias``), ``dtype`` or ``tokens`` to the values it covers, and
    ``events`` to events of the case. Without ``when`` the region is every case.
    """

    id: str
    adapters: tuple[str, ...]
    clause: str
    reason: str
    link: str
    witness: Case | SharedCase
    affects: tuple[str, ...] = ()
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def touches(self, adapter: str, clause: str) -> bool:
        """Tell whether its region is left out of the search of ``clause`` on ``adapter``."""
        globs = (self.clause, *self.affects)
        return adapter in self.adapters and any(fnmatch.fnmatch(clause, glob) for glob in globs)

    def covers(self, bounds: Bounds | None, case: Case | SharedCase) -> bool:
        """Tell whether ``case`` lies in the region."""
        if type(case) is not type(self.witness):
            return False
        for name, values in self.when.items():
            if name == "events":
                if bounds is None or not all(EVENTS[slug].occurs(bounds) for slug in values):
                    return False
            elif not any(_same(_read(name, case), value) for value in values):
                return False
        return True


def load_known(path: Path) -> list[Divergence]:
    """Read a known-divergences file. Errors: ``KnownError``, in one line."""
    try:
        data = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise KnownError(f"Cannot read {path}: {error}") from error
    unknown = sorted(set(data) - {"divergence"})
    if unknown:
        raise KnownError(f"{path} has {unknown}, but only [[divergence]] tables are read")
    entries = data.get("divergence", [])
    if not isinstance(entries, list):
        raise KnownError(f"{path} has a [divergence] table, but entries are [[divergence]]")
    return [_divergence(path, number, entry) for number, entry in enumerate(entries)]


def _divergence(path: Path, number: int, entry: dict[str, Any]) -> Divergence:
    where = f"{path}, divergence {entry.get('id', number + 1)!r}"
    for name in _REQUIRED:
        if not entry.get(name):
            raise KnownError(f"{where}: {name} is missing or empty; every entry needs one")
    unknown = sorted(set(entry) - {*_REQUIRED, *_OPTIONAL})
    if unknown:
        raise KnownError(f"{where}: unknown keys {unknown}; known are {[*_REQUIRED, *_OPTIONAL]}")
    for name in ("id", "clause", "reason", "link", "witness"):
        if not isinstance(entry[name], str):
            raise KnownError(f"{where}: {name} is {entry[name]!r}, but should be a string")
    if not isinstance(entry.get("when", {}), dict):
        raise KnownError(f"{where}: when is {entry['when']!r}, but should be a table")
    if entry["clause"] not in CLAUSES:
        raise KnownError(f"{where}: unknown clause {entry['clause']!r}")
    when = {key: tuple(_listed(value)) for key, value in entry.get("when", {}).items()}
    for slug in when.get("events", ()):
        if slug not in EVENTS:
            raise KnownError(f"{where}: unknown event {slug!r}; `moe-routing clauses` lists them")
    try:
        witness, _ = load_case(path.parent / entry["witness"])
        for key in set(when) - {"events"}:
            _read(key, witness)
    except CaseError as error:
        raise KnownError(f"{where}: {error}") from error
    except AttributeError as error:
        raise KnownError(f"{where}: when.{key} names nothing: {error}") from error
    return Divergence(
        id=entry["id"],
        adapters=tuple(_listed(entry["adapters"])),
        clause=entry["clause"],
        reason=entry["reason"],
        link=entry["link"],
        witness=witness,
        affects=tuple(_listed(entry.get("affects", []))),
        when=when,
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _read(name: str, case: Case | SharedCase) -> Any:
    """Return what a ``when`` key names; a field of an absent part is None."""
    if name == "dtype":
        return case.inputs.dtype
    if name == "tokens":
        return len(case.inputs.hidden)
    if name in INPUT_AXES and isinstance(case, Case):
        return INPUT_AXES[name](case.inputs)
    head, _, field_ = name.partition(".")
    part: Any = getattr(case.config, head)
    if not field_:
        return part
    if head not in PARTS or field_ not in {each.name for each in fields(PARTS[head])}:
        raise AttributeError(f"a {head} has no field {field_!r}")
    return None if part is None else getattr(part, field_)


def _same(value: Any, listed: Any) -> bool:
    if listed == "absent":
        return value is None
    if listed == "present":
        return value is not None
    if listed in ("inf", "-inf") and isinstance(value, float):
        return value == float(listed)
    return bool(value == listed)
