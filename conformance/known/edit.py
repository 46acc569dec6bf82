"""The file of known divergences, edited as a person would: entries added, entries removed.

Comments and the form of the other entries stay as they are.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import tomli_w

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.cases.files import save_case
from moe_routing.conformance.cases.whole import write_whole
from moe_routing.conformance.known.divergence import (
    Divergence,
    KnownError,
    heading_lines,
    load_known,
)
from moe_routing.conformance.known.regions import holds

_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def add_entry(path: Path, entry: dict[str, Any], witness: AnyCase) -> Divergence:
    """Append an entry and write its witness next to the file; return it as read back.

    Errors: ``KnownError`` for an id that is no slug or is taken, and for whatever
    ``load_known`` finds wrong; after an error, the file is as before.
    """
    known = load_known(path) if path.exists() else []
    _check_id(path, entry["id"], known)
    case_file = path.parent / f"{entry['id']}.json"
    if case_file.exists():
        raise KnownError(f"Cannot write the witness {case_file}: it already exists; use another id")
    before = path.read_bytes() if path.exists() else None
    with ExitStack() as undo:
        undo.callback(_put_back, path, before)
        undo.callback(case_file.unlink, missing_ok=True)
        save_case(witness, case_file, clause=entry["clause"])
        _append(path, _entry_text({**entry, "witness": case_file.name}))
        added = load_known(path)[-1]
        _check_witness(added)
        undo.pop_all()
    return added


def _put_back(path: Path, before: bytes | None) -> None:
    """Restore a file's bytes, or remove it if there had been none."""
    if before is None:
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(before)


def _append(path: Path, text: str) -> None:
    before = path.read_text(encoding="utf-8").rstrip() if path.exists() else ""
    write_whole(path, f"{before}\n\n{text}" if before else text)


def _check_id(path: Path, id_: str, known: Sequence[Divergence]) -> None:
    if not _SLUG.fullmatch(id_):
        raise KnownError(f"Invalid id {id_!r}: use lowercase letters, digits and hyphens")
    for each in known:
        if each.id == id_:
            raise KnownError(
                f"{each.place} already has the id {id_!r}: use another, or edit that entry"
            )


def _check_witness(added: Divergence) -> None:
    """Refuse a region that its own witness is not in; events go unread here."""
    for name, values in added.when.items():
        held = all(holds({name: values}, None, case) for case in added.witnesses)
        if name != "events" and not held:
            raise KnownError(f"when.{name} = {list(values)} does not cover the case itself")


def _entry_text(entry: dict[str, Any]) -> str:
    """Format an entry as TOML, ``when`` on one line."""
    when = entry.get("when", {})
    lines = [f"{key} = {_value(value)}" for key, value in entry.items() if key != "when"]
    if when:
        inside = ", ".join(f"{_key(key)} = {_value(value)}" for key, value in when.items())
        lines.append(f"when = {{ {inside} }}")
    return "\n".join(["[[divergence]]", *lines]) + "\n"


def _key(name: str) -> str:
    return tomli_w.dumps({name: 0}).partition(" = ")[0]


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(each) for each in value)}]"
    return tomli_w.dumps({"x": value}).partition(" = ")[2].strip()


def parse_value(text: str) -> Any:
    """Read a value as TOML would, or else as the word that it is."""
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def remove_entries(path: Path, ids: Sequence[str]) -> None:
    """Remove entries, with the witnesses that no other entry names."""
    if not ids:
        return
    text = path.read_text(encoding="utf-8")
    lines, starts = text.splitlines(keepends=True), [n - 1 for n in heading_lines(text)]
    entries = tomllib.loads(text).get("divergence", [])
    if len(starts) != len(entries):
        raise KnownError(f"Cannot edit {path}: write each entry as a [[divergence]] table")
    kept = [entry for entry in entries if entry["id"] not in ids]
    for number in reversed(range(len(entries))):
        if entries[number]["id"] in ids:
            end = _end(lines, starts[number], [*starts, len(lines)][number + 1])
            del lines[starts[number] : end]
    write_whole(path, "".join(lines).rstrip() + "\n" if lines else "")
    needed = {name for entry in kept for name in _witnesses(entry)}
    for entry in entries:
        for name in set(_witnesses(entry)) - needed:
            (path.parent / name).unlink(missing_ok=True)


def _witnesses(entry: dict[str, Any]) -> list[str]:
    named = entry["witness"]
    return named if isinstance(named, list) else [named]


def _end(lines: Sequence[str], start: int, end: int) -> int:
    """Return where an entry ends: before the comment that heads the next one."""
    while end - 1 > start and lines[end - 1].lstrip().startswith("#"):
        end -= 1
    return end
