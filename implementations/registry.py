"""Finding adapters: a registered name, ``module:attr``, ``file.py:attr``, a command, a group.

A name may stand for many adapters: a family's, or a glob such as ``transformers:glm*``.
"""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import importlib.util
import inspect
import shlex
import shutil
import sys
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.process import ProcessAdapter
from moe_routing.implementations.protocol import Adapter, BackendLost, BackendMissing

ENTRY_POINT_GROUP = "moe_routing.adapters"

PROCESS = "process"
"""The prefix, before the colon, of a command that starts the backend."""

SHIPPED = {
    "reference": "moe_routing.implementations.reference:ReferenceAdapter",
    "torch": "moe_routing.implementations.torch_eager:TorchAdapter",
    "scattermoe": "moe_routing.implementations.scattermoe:ScatterMoeAdapter",
    "sonicmoe": "moe_routing.implementations.sonicmoe:SonicMoeAdapter",
    "torchtitan": "moe_routing.implementations.torchtitan:TorchtitanAdapter",
    "megatron-core": "moe_routing.implementations.megatron_core:MegatronCoreAdapter",
}
"""The adapters of this distribution, by name."""

FAMILIES = {
    "transformers": "moe_routing.implementations.transformers",
    "deepspeed": "moe_routing.implementations.deepspeed",
}
"""The modules that hold many adapters each, by the name that stands for all of them.

``transformers:qwen3_moe`` is one. A module has ``MEMBERS``, the names of its adapters,
``OUT_OF_SCOPE``, why there is none for some others, and each adapter as an attribute.
"""

UNSERVED = {
    "scattermoe-upstream": "the kernels of shawntan/scattermoe have no router: they are given "
    "expert ids and weights",
    "sonic-moe": "its router is a fused kernel for Hopper and Blackwell GPUs that needs "
    "torch 2.9 or older",
}
"""Why there is no adapter for some packages, by the name that it would have."""


class AdapterError(Exception):
    """An adapter could not be found, imported or built; the message says how to fix it."""


def registered() -> dict[str, str]:
    """Return where each registered adapter lives, by name: shipped, then entry points."""
    found = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
    members = {
        f"{family}:{name}": f"{module}:{name}"
        for family, module in FAMILIES.items()
        for name in importlib.import_module(module).MEMBERS
    }
    return {**found, **SHIPPED, **members}


def out_of_scope() -> dict[str, str]:
    """Return why there is no adapter for some routers, by the name that it would have."""
    members = {
        f"{family}:{name}": reason
        for family, module in FAMILIES.items()
        for name, reason in importlib.import_module(module).OUT_OF_SCOPE.items()
    }
    return {**members, **UNSERVED}


def expand(reference: str) -> list[str]:
    """Return the references that ``reference`` stands for: a family's members, a glob's matches.

    Any other reference is returned as it is, whether or not there is such an adapter.
    """
    pattern = f"{reference}:*" if reference in FAMILIES else reference
    return fnmatch.filter(registered(), pattern) or [reference]


def is_shipped(reference: str) -> bool:
    """Return whether ``reference`` names an adapter of this distribution.

    Errors: ``AdapterError``.
    """
    return f"{find_adapter(reference)[0]}.".startswith(f"{__package__}.")


def shipped_known() -> list[Path]:
    """Return the known-divergences files of the shipped adapters."""
    return sorted((Path(__file__).parent / "known").glob("*.toml"))


def load_adapter(reference: str, *, device: str = "cpu") -> Adapter:
    """Return the adapter that ``reference`` names.

    ``reference`` is a registered name, ``package.module:attribute``,
    ``path/to/file.py:attribute`` or ``process:command``. The attribute is an adapter, or a
    class or function that makes one; one that takes ``device`` is given it. A file can
    import the other modules in its folder. Errors: ``AdapterError``, in one line.
    """
    location, attribute = find_adapter(reference)
    if location == PROCESS:
        return _built(reference, partial(ProcessAdapter, shlex.split(attribute)), device)
    module = _load_file(location) if location.endswith(".py") else _load_module(location)
    if not hasattr(module, attribute):
        public = [name for name in vars(module) if not name.startswith("_")]
        near = difflib.get_close_matches(attribute, public, n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise AdapterError(f"{location} has no attribute {attribute!r}{hint}")
    return _built(reference, getattr(module, attribute), device)


def find_adapter(reference: str) -> tuple[str, str]:
    """Return the module or file that ``reference`` names, and the attribute, without importing.

    Errors: ``AdapterError`` for a name that is not registered, or a file that does not exist.
    """
    if reference in UNSERVED:
        raise AdapterError(f"{reference} is out of scope: {UNSERVED[reference]}")
    family, _, member = reference.partition(":")
    if family == PROCESS:
        return family, _command(member)
    known = registered()
    if family in FAMILIES and reference not in known:
        raise AdapterError(_no_member(family, member))
    location, colon, attribute = known.get(reference, reference).rpartition(":")
    if not colon or not location or not attribute:
        raise AdapterError(_unknown(reference))
    if location.endswith(".py") and not Path(location).is_file():
        raise AdapterError(f"Cannot find the adapter file {location}; looked from {Path.cwd()}")
    return location, attribute


def _command(command: str) -> str:
    """Return ``command`` if its program exists and can be run. Errors: ``AdapterError``."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise AdapterError(f"Cannot read the command of process:{command}: {error}") from error
    if not words:
        raise AdapterError(f"{PROCESS}: names no command; write, for example, {PROCESS}:./router")
    if shutil.which(words[0]) is None:
        if Path(words[0]).is_file():
            raise AdapterError(f"Cannot start {words[0]}: not executable; run chmod +x {words[0]}")
        raise AdapterError(f"Cannot find the command {words[0]}; looked from {Path.cwd()}")
    return command


def _no_member(family: str, name: str) -> str:
    module, reference = importlib.import_module(FAMILIES[family]), f"{family}:{name}"
    if name in module.OUT_OF_SCOPE:
        return f"{reference} is out of scope: {module.OUT_OF_SCOPE[name]}"
    near = difflib.get_close_matches(name, module.MEMBERS, n=3) or module.MEMBERS[:3]
    return (
        f"Unknown adapter {reference!r}: {family} stands for {len(module.MEMBERS)} adapters, "
        f"{', '.join(f'{family}:{each}' for each in near)} among them"
    )


def _unknown(reference: str) -> str:
    known = sorted({name.partition(":")[0] for name in registered()})
    near = difflib.get_close_matches(reference, known, n=1)
    hint = f": did you mean {near[0]}?" if near else "."
    return (
        f"Unknown adapter {reference!r}{hint} Registered are {', '.join(known)}; "
        "or give package.module:attribute, path/to/file.py:attribute or process:command"
    )


def _load_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise AdapterError(f"Cannot import {name}: {_in_one_line(error)}") from error


def _load_file(path: str) -> ModuleType:
    file = Path(path)
    name = f"moe_routing_adapter_{file.stem}_{abs(hash(file.resolve())):x}"
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


def _built(reference: str, value: Any, device: str) -> Adapter:
    if isinstance(value, type) or (callable(value) and not hasattr(value, "route")):
        try:
            takes_device = "device" in inspect.signature(value).parameters
            value = value(device=device) if takes_device else value()
        except (Exception, SystemExit) as error:
            raise AdapterError(f"Cannot build {reference}: {_in_one_line(error)}") from error
    if device != "cpu" and getattr(value, "device", "cpu") != device:
        raise AdapterError(f"{reference} cannot run on {device}: it has no device argument")
    _inspect(reference, value)
    adapter: Adapter = value
    return adapter


def _inspect(reference: str, value: Any) -> None:
    """Raise ``AdapterError`` unless ``value`` has what every adapter has."""
    lacking = [name for name in ("name", "capabilities", "route") if not hasattr(value, name)]
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


def _in_one_line(error: BaseException) -> str:
    if isinstance(error, (BackendLost, BackendMissing)):  # their messages need no type
        return " ".join(str(error).split())
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
