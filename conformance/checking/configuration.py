"""The table ``[tool.moe-routing]`` of a pyproject.toml: what a run takes unless told otherwise.

``moe-routing check`` and the pytest plugin read it. A wrong key or value is one line.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_routing.conformance.checking.profiles import PROFILES
from moe_routing.reference.checks import shown

FILE = "pyproject.toml"
"""The file that has the table."""

TABLE = "moe-routing"
"""The name of the table, in ``tool``."""


class ConfigurationError(Exception):
    """A table that cannot be used; the message names file, key, value, rule and fix."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What the table says; None or nothing where it does not. Paths are as from here."""

    adapters: tuple[str, ...] = ()
    known: tuple[Path, ...] = ()
    seed: int | None = None
    profile: str | None = None
    device: str | None = None


def configuration(start: Path) -> Configuration:
    """Return what the nearest table says, in ``start`` or above it, within its git repository.

    Errors: ``ConfigurationError``, ``OSError``.
    """
    start = start.absolute()
    for folder in (start, *start.parents):
        if (folder / FILE).is_file():
            path = Path(_from_here(folder / FILE))
            table = _table(path)
            if table is not None:
                return _read(path, table)
        if (folder / ".git").exists():
            break
    return Configuration()


def _table(path: Path) -> Any:
    """Return the table of a file, or None. Errors: ``ConfigurationError``, ``OSError``."""
    try:
        data = tomllib.loads(path.read_bytes().decode("utf-8"))
    except ValueError as error:  # of the encoding, or of TOML
        raise ConfigurationError(f"{path} is not TOML: {error}") from error
    tool = data.get("tool")
    if not isinstance(tool, dict):
        return None
    if TABLE not in tool and "moe_routing" in tool:
        raise ConfigurationError(f"{path} has [tool.moe_routing]: write [tool.{TABLE}]")
    return tool.get(TABLE)


def _read(path: Path, table: Any) -> Configuration:
    at = f"{path}: [tool.{TABLE}]"
    if not isinstance(table, dict):
        raise ConfigurationError(f"{at} is {shown(table)}, but should be a table of {_named()}")
    for key, value in table.items():
        if key not in _RULES:
            raise ConfigurationError(
                f"{at} has {key} = {shown(value)}, but no such key{_near(key)}"
            )
        is_right, rule, example = _RULES[key]
        if not is_right(value):
            wrong = f"{at} has {key} = {shown(value)}, but it should be {rule}"
            raise ConfigurationError(f"{wrong}, for example {key} = {example}")
    return Configuration(
        adapters=tuple(_adapter(each, path.parent) for each in table.get("adapters", ())),
        known=tuple(Path(_from_here(path.parent / each)) for each in table.get("known", ())),
        seed=table.get("seed"),
        profile=table.get("profile"),
        device=table.get("device"),
    )


def _near(key: str) -> str:
    near = difflib.get_close_matches(key, _RULES, n=1)
    return f": did you mean {near[0]}?" if near else f": its keys are {_named()}"


def _named() -> str:
    *some, last = _RULES
    return f"{', '.join(some)} and {last}"


def _adapter(reference: str, folder: Path) -> str:
    """Return a reference as from here: one that names a file names it from its table's folder."""
    file, colon, attribute = reference.rpartition(":")
    is_file = file.endswith(".py") and not file.startswith("process:")
    return f"{_from_here(folder / file)}{colon}{attribute}" if is_file else reference


def _from_here(path: Path) -> str:
    """Return a path relative to the working directory, if it can be."""
    try:
        return os.path.relpath(path)
    except ValueError:  # another drive
        return str(path)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(_is_text(each) for each in value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_profile(value: Any) -> bool:
    return isinstance(value, str) and value in PROFILES


_RULES: dict[str, tuple[Callable[[Any], bool], str, str]] = {
    "adapters": (_are_texts, "a list of adapters", '["my_router.py:MyRouter"]'),
    "device": (_is_text, "the name of a device", '"cuda"'),
    "known": (_are_texts, "a list of files of known divergences", '["known.toml"]'),
    "profile": (_is_profile, f"one of {', '.join(PROFILES)}", '"smoke"'),
    "seed": (_is_whole, "a whole number", "0"),
}
