"""Loading adapters: what a module or a file holds, imported, built and looked over."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.nearest_file import adapters_like
from moe_routing.implementations.protocol import (
    METHODS,
    ON_RANK,
    Adapter,
    BackendLost,
    BackendMissing,
)
from moe_routing.implementations.traces import place

_PREFIX = "moe_routing_adapter_"
_OWN_NAME = re.compile(rf"\b{_PREFIX}(\w+)_[0-9a-f]+\b")


class AdapterError(Exception):
    """An adapter could not be found, imported or built; the message says how to fix it."""


def attribute_of(location: str, attribute: str) -> Any:
    """Import a module, or a file that ends in ``.py``, and return an attribute of it.

    Errors: ``AdapterError``, in one line.
    """
    module = module_of(location, attribute)
    try:
        return getattr(module, attribute)
    except AdapterError:  # a module that knows better what it lacks
        raise
    except AttributeError as error:
        public = [name for name in vars(module) if not name.startswith("_")]
        near = difflib.get_close_matches(attribute, public, n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise AdapterError(f"{location} has no attribute {attribute!r}{hint}") from error


def module_of(location: str, attribute: str = "") -> ModuleType:
    """Import a module, or a file that ends in ``.py``. Errors: ``AdapterError``, in one line."""
    is_file = location.endswith(".py")
    return _load_file(location) if is_file else _load_module(location, attribute)


def _load_module(name: str, attribute: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        near = adapters_like(f"{name}:{attribute}") if _is_not_there(name, error) else []
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise AdapterError(f"Cannot import {name}: {_in_one_line(error)}{hint}") from error


def _is_not_there(name: str, error: BaseException) -> bool:
    """Return whether it is the module itself, or a package above it, that could not be found."""
    missing = isinstance(error, ModuleNotFoundError) and error.name
    return bool(missing) and f"{name}.".startswith(f"{missing}.")


def _load_file(path: str) -> ModuleType:
    file = Path(path)
    name = f"{_PREFIX}{file.stem}_{abs(hash(file.resolve())):x}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise AdapterError(f"Cannot import {path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # so that it can import from its folder, also later, in functions
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise AdapterError(f"Cannot import {path}: {_in_one_line(error)}") from error
    return module


def own_name(text: str) -> str:
    """Return ``text`` with the names of modules that were files as their files have them."""
    return _OWN_NAME.sub(r"\1", text)


def adapter_of(
    value: Any, reference: str = "", *, device: str = "cpu", of_rank: bool = False
) -> Adapter:
    """Return the adapter that ``value`` is, or that it makes if it is a class or a function.

    ``reference`` is its name in messages; unless given, that of ``value`` itself. ``of_rank``
    says that it is to run as one rank of several. Errors: ``AdapterError``, in one line.
    """
    reference = reference or getattr(value, "__qualname__", type(value).__qualname__)
    if isinstance(value, type) or (callable(value) and not _has_method(value)):
        try:
            takes_device = "device" in inspect.signature(value).parameters
            value = value(device=device) if takes_device else value()
        except (Exception, SystemExit) as error:
            raise AdapterError(f"Cannot build {reference}: {_in_one_line(error)}") from error
    if device != "cpu" and getattr(value, "device", "cpu") != device:
        raise AdapterError(f"{reference} cannot run on {device}: it has no device argument")
    _inspect(reference, value, of_rank)
    adapter: Adapter = value
    return adapter


def _inspect(reference: str, value: Any, of_rank: bool) -> None:
    """Raise ``AdapterError`` unless ``value`` has what every adapter has."""
    ranked = hasattr(value, ON_RANK)
    if of_rank and not ranked:
        raise AdapterError(
            f"{reference} has no method {ON_RANK}, which is what --ranks runs: docs/ranks.md"
        )
    if ranked and not of_rank and not any(hasattr(value, name) for name in METHODS):
        raise AdapterError(f"{reference} runs on several ranks at once: add --ranks 2")
    lacking = [name for name in ("name", "capabilities") if not hasattr(value, name)]
    lacking += [] if _has_method(value) else ["route"]
    if lacking:
        raise AdapterError(
            f"{reference} is not an adapter: it has no {', '.join(lacking)} "
            f"(type={type(value).__name__}); see moe_routing.implementations.Adapter"
        )
    if not (isinstance(value.name, str) and value.name and value.name.isprintable()):
        raise AdapterError(
            f"Expected {reference} to have a name (a printable str) but got {value.name!r}"
        )
    try:
        capabilities = value.capabilities()
    except BackendMissing:
        raise
    except (Exception, SystemExit) as error:
        raise AdapterError(
            f"Cannot read the capabilities of {reference}: {_in_one_line(error)}"
        ) from error
    if not isinstance(capabilities, Capabilities):
        raise AdapterError(
            f"Expected {reference}.capabilities() to return Capabilities but got "
            f"{' '.join(repr(capabilities).split())[:80]}"
        )


def _has_method(value: Any) -> bool:
    return any(callable(getattr(value, name, None)) for name in (*METHODS, ON_RANK))


def _in_one_line(error: BaseException) -> str:
    if isinstance(error, (BackendLost, BackendMissing)):  # their messages need no type
        return " ".join(str(error).split())
    words = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {words}{place(error)}"
