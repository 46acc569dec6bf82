"""How to repeat a failing item: the case alone, if a command line can name its adapter."""

from __future__ import annotations

import inspect
import shlex
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from moe_routing.implementations import Adapter


def replay_command(given: Any, adapter: Adapter, item: pytest.Function, case: Path | None) -> str:
    """Return the command that repeats ``item``: its ``case``, or, failing that, the item.

    ``given`` is the adapter as the test named it, ``adapter`` the one that was checked.
    """
    reference = reference_of(given, item)
    if case is None or reference is None:
        return shlex.join(["python", "-m", "pytest", *_again(item)])
    device = getattr(adapter, "device", "cpu")
    more = [] if device == "cpu" else ["--device", str(device)]
    return shlex.join(["moe-routing", "replay", str(case), reference, *more])


def reference_of(adapter: Any, item: pytest.Function) -> str | None:
    """Return the name of ``adapter`` on the command line, or None if it has none.

    It has one if the adapter was given by name, if its class takes no arguments (except
    ``device``), or if the test's module has it, or what makes it, as an attribute.
    """
    if isinstance(adapter, str):
        return adapter
    kind = adapter if isinstance(adapter, type) else type(adapter)
    home = sys.modules.get(kind.__module__)
    if home and getattr(home, kind.__qualname__, None) is kind and _takes_nothing(kind):
        return f"{location(home)}:{kind.__qualname__}"
    names = [name for name, value in vars(item.module).items() if value is adapter]
    return f"{location(item.module)}:{names[0]}" if names else None


def location(module: ModuleType) -> str:
    """Return a module's name in a command: its dotted name if installed, else its file."""
    file = Path(module.__file__ or "")
    in_package = (file.parent / "__init__.py").is_file()
    if in_package and module.__name__.partition(".")[0] in packages_distributions():
        return module.__name__
    return _from_here(file)


def _takes_nothing(kind: type) -> bool:
    """Return whether a class takes no arguments, so that all its adapters are alike."""
    return not set(inspect.signature(kind).parameters) - {"device"}


def _again(item: pytest.Function) -> list[str]:
    """Return the pytest arguments that run ``item`` alone, with the options of this run."""
    name = item.nodeid.partition("::")[2]
    options = []
    for option in ("moe_routing_profile", "moe_routing_seed", "hypothesis_seed"):
        value = item.config.getoption(option, None)
        if value is not None:
            options.append(f"--{option.replace('_', '-')}={value}")
    return [f"{_from_here(item.path)}::{name}", *options]


def _from_here(file: Path) -> str:
    """Return a path, relative to the working directory if it is inside."""
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)
