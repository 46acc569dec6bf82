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
    more = [] if device == "cpu" or isinstance(given, str) else ["--device", str(device)]
    return shlex.join(["moe-routing", "replay", str(case), reference, *more])


def reference_of(adapter: Any, item: pytest.Function) -> str | None:
    """Return how the command line names ``adapter``, or None where it cannot.

    It can where the adapter was given by name, where its class takes no arguments (but
    ``device``), and where the test's module has it, or what makes it, as an attribute.
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
    """Return how a command names a module: as part of an installed package, or as a file."""
    file = Path(module.__file__ or "")
    in_package = (file.parent / "__init__.py").is_file()
    if in_package and module.__name__.partition(".")[0] in packages_distributions():
        return module.__name__
    return _from_here(file)


def _takes_nothing(kind: type) -> bool:
    """Tell whether every adapter of a class is like every other."""
    return not set(inspect.signature(kind).parameters) - {"device"}


def _again(item: pytest.Function) -> list[str]:
    """Return the arguments with which pytest runs ``item`` alone, as it runs now."""
    name = item.nodeid.partition("::")[2]
    options = []
    for option in ("moe_routing_profile", "moe_routing_seed", "hypothesis_seed"):
        value = item.config.getoption(option, None)
        if value is not None:
            options.append(f"--{option.replace('_', '-')}={value}")
    return [f"{_from_here(item.path)}::{name}", *options]


def _from_here(file: Path) -> str:
    """Return a path as short as it can be said from the working directory."""
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)
