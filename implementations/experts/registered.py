"""The functions of transformers' ExpertsInterface: its own, and those that a plug-in registers."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_routing.implementations.experts.models import VERSION
from moe_routing.implementations.loading import AdapterError, module_of
from moe_routing.implementations.protocol import missing
from moe_routing.reference.formats import INPUT_FORMATS

EAGER = "eager"
"""Stands for the forward that the model's class has itself."""

_INTERFACE = "transformers.integrations.moe"
_EVERY = tuple(INPUT_FORMATS)
_ROWS = 8  # of 16 bits: torch.grouped_mm wants rows of a multiple of 16 bytes


@dataclass(frozen=True, kw_only=True)
class Function:
    """One function, by the name that it is registered under, or itself where it is not.

    H and F are multiples of ``multiple_of``.
    """

    name: str
    dtypes: tuple[str, ...] = _EVERY
    multiple_of: int = 1
    call: Callable[..., Any] | None = None

    def run(self, module: Any, *given: Any) -> Any:
        """Run it on ``given`` through the module, which looks it up by its name."""
        if self.call is not None:
            return self.call(module, *given)
        module.config._experts_implementation = self.name
        return module(*given)


_OWN = {
    each.name: each
    for each in (
        Function(name=EAGER),
        Function(name="batched_mm"),
        Function(name="grouped_mm", multiple_of=_ROWS),
    )
}
_KERNELS = {
    each.name: each
    for each in (
        Function(name="deepgemm", dtypes=("bfloat16",), multiple_of=64),
        Function(name="sonicmoe", dtypes=("bfloat16", "float16"), multiple_of=64),
    )
}
"""Functions that load a kernel from a hub, for a GPU."""


def built_in() -> tuple[str, ...]:
    """Return transformers' own functions that can run on this machine."""
    return (*_OWN, *(name for name in _KERNELS if not lacking()))


def out_of_scope() -> dict[str, str]:
    """Return why transformers' other functions cannot run on this machine."""
    why = lacking()
    return dict.fromkeys(_KERNELS, why) if why else {}


def lacking() -> str:
    """Return what functions that load a kernel lack on this machine; empty: nothing."""
    gpu = Path("/dev/nvidiactl").exists()
    wanted = [
        *([] if gpu else ["a CUDA GPU"]),
        *([] if importlib.util.find_spec("kernels") else ["python -m pip install kernels"]),
    ]
    return f"it loads a kernel from a hub, which needs {' and '.join(wanted)}" if wanted else ""


def plugged_in() -> tuple[str, ...]:
    """Return what plug-ins have registered so far, without importing transformers."""
    if _INTERFACE not in sys.modules:
        return ()
    return tuple(name for name in _interface() if name not in (*_OWN, *_KERNELS))


def function_of(name: str) -> Function:
    """Return the function that ``name`` stands for, as ``NAME`` or ``MODULE:NAME``.

    The module, or the file that ends in ``.py``, is imported first: ``NAME`` is what it registers,
    or a function of it. Errors: ``AdapterError``, ``BackendMissing``.
    """
    location, _, function = name.rpartition(":")
    module = module_of(location) if location else None
    if (known := {**_OWN, **_KERNELS}.get(function)) is not None:
        return known
    if function in _interface():
        return Function(name=function)
    if callable(found := getattr(module, function, None)):
        return Function(name=function, call=found)
    where = f", nor is it a function of {location}" if location else ""
    raise AdapterError(
        f"No experts function {function!r} is registered in transformers' ExpertsInterface"
        f"{where}: there are {', '.join(sorted({EAGER, *_interface()}))}"
    )


def registered_by(location: str) -> list[str]:
    """Return what a module registers, as ``MODULE:NAME``. Errors: as ``function_of``."""
    module_of(location)
    _interface()
    return [f"{location}:{name}" for name in plugged_in()]


def _interface() -> Any:
    return transformers_module("integrations.moe").ALL_EXPERTS_FUNCTIONS


def transformers_module(name: str) -> Any:
    """Import a module of transformers. Errors: ``BackendMissing``."""
    try:
        return importlib.import_module(f"transformers.{name}")
    except ModuleNotFoundError as error:
        install = f"python -m pip install transformers=={VERSION}"
        raise missing("transformers", "transformers", error, install) from error
