"""The record of what was red last, by device and adapter: what ``check --lf`` runs again.

A run replaces what it ran and leaves the rest; where nothing is red there is no file.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from moe_routing.conformance.cases.whole import write_whole
from moe_routing.conformance.checking.results import AdapterResult, RunResult
from moe_routing.conformance.report.text import ran
from moe_routing.reference.checks import shown

FILE = "last-failed.json"
"""The name of the record, in the folder of failing cases."""

SCHEMA = 1
"""The version of the record's form."""

Red = dict[str, dict[str, list[str]]]
"""The ids of red clauses, by the reference of the adapter, by device."""


class RecordError(Exception):
    """A file that is no record; the message names it and the fix."""


def load(folder: Path) -> Red:
    """Return what is recorded, or nothing without a file. Errors: ``RecordError``, ``OSError``."""
    path = folder / FILE
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is not JSON ({error}): remove it") from error
    if not _is_record(found):
        raise RecordError(f"{path} is {shown(found)}, not what `check` records: remove it")
    red: Red = found["red"]
    return red


def _is_record(found: Any) -> bool:
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        return False
    red = found.get("red")
    if not isinstance(red, dict) or not all(isinstance(each, dict) for each in red.values()):
        return False
    lists = [ids for each in red.values() for ids in each.values()]
    return all(isinstance(ids, list) and all(isinstance(i, str) for i in ids) for ids in lists)


def record(run: RunResult, folder: Path) -> None:
    """Record what a run found, over a file that is no record too. Errors: ``OSError``."""
    try:
        before = load(folder)
    except RecordError:
        before = {}
    after = merged(before, run.adapters)
    if after == before:
        return
    if after:
        text = json.dumps({"schema": SCHEMA, "red": after}, indent=1)
        write_whole(folder / FILE, text + "\n")
    else:
        (folder / FILE).unlink(missing_ok=True)


def merged(before: Red, adapters: Sequence[AdapterResult]) -> Red:
    """Return the record after a run: of each clause that it ran, whether it is red now."""
    after = {device: dict(found) for device, found in before.items()}
    for adapter in adapters:
        tried = [each for each in adapter.clauses if ran(adapter, each)]
        of_device = after.setdefault(adapter.device, {})
        stay = set(of_device.get(adapter.reference, [])) - {each.id for each in tried}
        of_device[adapter.reference] = sorted(stay | {e.id for e in tried if not e.green})
    kept = {device: {k: v for k, v in found.items() if v} for device, found in after.items()}
    return {device: found for device, found in kept.items() if found}


def red_of(
    red: Red, device: str, references: Sequence[str], ids: Collection[str]
) -> dict[str, list[str]]:
    """Return the adapters among ``references`` that were red, each with its clauses of ``ids``."""
    of_device = red.get(device, {})
    found = {each: [i for i in of_device.get(each, []) if i in ids] for each in references}
    return {reference: clauses for reference, clauses in found.items() if clauses}
