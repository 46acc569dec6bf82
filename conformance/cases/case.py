"""One case: a configuration with inputs, and its bit-exact JSON form."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from moe_routing.reference import (
    SPEC_VERSION,
    RouterConfig,
    RouterInputs,
    SharedExpertConfig,
    SharedExpertInputs,
)
from moe_routing.reference.checks import shown
from moe_routing.reference.jsonform import PARTS, config_to_json, from_json, to_json

SCHEMA = 1
"""The version of the case file's form; readers refuse what is newer."""

_LISTS = re.compile(r"\[[^\[\]{}]*\]")
_SPAN = 2**27
"""The farthest that an array of a case file is spread in memory, in numbers: 512 MiB."""


class CaseError(Exception):
    """A case file cannot be read; the message says which and why."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A routing call to hold against the reference, and the recipe that made its numbers."""

    config: RouterConfig
    inputs: RouterInputs
    recipe: str = "given"

    @property
    def size(self) -> str:
        """The sizes, as messages show them."""
        return (
            f"T={self.inputs.num_tokens} H={self.inputs.hidden_size} "
            f"E={self.config.num_experts} K={self.config.top_k}"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (case_to_json(self, compact=True),)  # an array alone loses its strides


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedCase:
    """A shared-expert call to hold against the reference."""

    config: SharedExpertConfig
    inputs: SharedExpertInputs
    recipe: str = "given"

    @property
    def size(self) -> str:
        """The sizes, as messages show them."""
        tokens, hidden = self.inputs.hidden.shape
        return f"T={tokens} H={hidden} I={len(self.inputs.up_proj)}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (case_to_json(self, compact=True),)  # an array alone loses its strides


def _restored(data: dict[str, Any]) -> Case | SharedCase:
    return case_from_json(data)[0]


def case_folder(adapter: str) -> str:
    """Return the folder of an adapter's case files: its name, as any file system takes it."""
    return adapter.replace("/", "_").replace(":", "_")


def save_case(case: Case | SharedCase, path: Path, *, clause: str | None = None) -> None:
    """Write ``case`` as small, readable, bit-exact JSON; ``clause`` says what it broke."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(case_to_json(case, clause=clause), indent=1)
    path.write_text(_LISTS.sub(lambda found: " ".join(found[0].split()), text) + "\n")


def load_case(path: Path) -> tuple[Case | SharedCase, str | None]:
    """Read a case file and the clause it names. Errors: ``CaseError``, in one line."""
    try:
        return case_from_json(json.loads(path.read_text()))
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        message = (
            f"missing {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        )
        raise CaseError(f"Cannot read the case file {path}: {message}") from error


def case_to_json(
    case: Case | SharedCase, *, clause: str | None = None, compact: bool = False
) -> dict[str, Any]:
    """Return the JSON form of ``case``: every number exact, ``nan`` and ``inf`` as strings.

    ``compact`` gives each array's bytes, ``hex``, in place of its ``values``: unreadable, and
    many times as fast.
    """
    kind = "routing" if isinstance(case, Case) else "shared-experts"
    inputs: dict[str, Any] = {"dtype": case.inputs.dtype}
    if isinstance(case, Case):
        inputs["selection_bias_on"] = case.inputs.selection_bias_on
    for name, array in case.inputs.arrays().items():
        inputs[name] = {"shape": list(array.shape), **_numbers(array, compact)}
        steps = _steps(array)
        if steps is not None:
            inputs[name]["steps"] = steps
    return {
        "schema": SCHEMA,
        "spec_version": SPEC_VERSION,
        "kind": kind,
        "clause": clause,
        "recipe": case.recipe,
        "config": config_to_json(case.config),
        "inputs": inputs,
    }


def case_from_json(data: dict[str, Any]) -> tuple[Case | SharedCase, str | None]:
    """Rebuild what ``case_to_json`` wrote. Errors: ``ValueError``, ``KeyError``, ``TypeError``."""
    _require_tables(data, "inputs", "config")
    if data["kind"] not in ("routing", "shared-experts"):
        raise ValueError(f"its kind is {data['kind']!r}, but should be routing or shared-experts")
    if data["schema"] > SCHEMA:
        raise ValueError(f"its schema {data['schema']} is newer than {SCHEMA}: update the suite")
    _check_kinds(data)
    inputs = {
        name: _array(name, value) if isinstance(value, dict) else value
        for name, value in data["inputs"].items()
    }
    fields_ = {name: _value(name, value) for name, value in data["config"].items()}
    recipe, clause = data["recipe"], data["clause"]
    if data["kind"] == "shared-experts":
        shared = SharedExpertInputs(**inputs)
        return SharedCase(
            config=SharedExpertConfig(**fields_), inputs=shared, recipe=recipe
        ), clause
    config = RouterConfig.unchecked(**fields_)
    return Case(config=config, inputs=RouterInputs(**inputs), recipe=recipe), clause


def _value(name: str, value: Any) -> Any:
    if name not in PARTS or value is None:
        return from_json(value) if name != "score" else value
    part, known = object.__new__(PARTS[name]), {each.name for each in fields(PARTS[name])}
    if not isinstance(value, dict) or set(value) != known:
        raise ValueError(f"{name} is {value!r}, but should have {', '.join(sorted(known))}")
    for key, number in value.items():
        object.__setattr__(part, key, from_json(number))
    return part


def _require_tables(data: Any, *names: str) -> None:
    if not isinstance(data, dict):
        raise ValueError(f"it holds a {type(data).__name__}, but should hold a table")
    for name in names:
        if not isinstance(data[name], dict):
            raise ValueError(f"its {name} are a {type(data[name]).__name__}, but should be a table")


def _check_kinds(data: dict[str, Any]) -> None:
    """Raise ``ValueError`` for what is read before the reference sees it, and of another kind."""
    if not isinstance(data["recipe"], str):
        raise ValueError(f"its recipe is {shown(data['recipe'])}, but should be a string")
    if not isinstance(data["clause"], str | None):
        raise ValueError(f"its clause is {shown(data['clause'])}, but should be a string or null")
    for name in ("num_experts", "top_k"):
        value = data["config"].get(name, 0)
        if not isinstance(value, int | np.integer):
            raise ValueError(f"its {name} is {shown(value)}, but should be an integer")


def _numbers(array: npt.NDArray[Any], compact: bool) -> dict[str, Any]:
    if compact:
        return {"hex": array.tobytes().hex()}
    return {"values": to_json(array.ravel().tolist())}


def _array(name: str, data: dict[str, Any]) -> npt.NDArray[Any]:
    kind = np.int64 if name in ("expert_table", "token_ids") else np.float32
    array = _from_hex(data, kind) if "hex" in data else _from_values(name, data, kind)
    return _laid_out(name, array, data["steps"]) if "steps" in data else array


def _from_hex(data: dict[str, Any], kind: type[np.generic]) -> npt.NDArray[Any]:
    return np.frombuffer(bytes.fromhex(data["hex"]), dtype=kind).reshape(data["shape"])


def _from_values(name: str, data: dict[str, Any], kind: type[np.generic]) -> npt.NDArray[Any]:
    values = [from_json(value) for value in data["values"]]
    if None in values:
        raise ValueError(f"{name} has a null among its values")
    try:
        return np.array(values, dtype=kind).reshape(data["shape"])
    except OverflowError as error:
        raise ValueError(f"{name} has a value beyond {kind.__name__}") from error


def _laid_out(name: str, array: npt.NDArray[Any], steps: Any) -> npt.NDArray[Any]:
    """Lay ``array`` out with the steps of a file, which may be anyone's. Errors: ``ValueError``."""
    told = f"{name} has the steps {shown(steps)}, but should"
    listed = isinstance(steps, list) and all(type(step) is int and step >= 0 for step in steps)
    if not listed or len(steps) != array.ndim:
        raise ValueError(f"{told} be {array.ndim} integers of 0 or more, one an axis")
    if max([_span(array.shape, steps), *steps]) > _SPAN:
        raise ValueError(f"{told} lie within {_SPAN} numbers")
    view = strided(array, steps)
    if view.tobytes() != array.tobytes():  # one value was written over another
        raise ValueError(f"{told} have a place for each value")
    return view


def _steps(array: npt.NDArray[Any]) -> list[int] | None:
    """Return the element strides of an array not in rows, nor backwards, nor spread too far."""
    if array.flags.c_contiguous or array.size == 0 or min(array.strides) < 0:
        return None
    steps = [step // array.itemsize for step in array.strides]
    return None if max([_span(array.shape, steps), *steps]) > _SPAN else steps


def _span(shape: Sequence[int], steps: Sequence[int]) -> int:
    """Return how many numbers lie between the first of an array and the last, both included."""
    return 1 + sum((max(n, 1) - 1) * step for n, step in zip(shape, steps, strict=True))


Inputs = TypeVar("Inputs", RouterInputs, SharedExpertInputs)


def with_fresh_arrays(inputs: Inputs) -> Inputs:
    """Return the same inputs in memory of their own, with the same strides."""
    fresh = object.__new__(type(inputs))
    vars(fresh).update(vars(inputs))
    for name, array in inputs.arrays().items():
        steps = _steps(array)
        own = array.copy() if steps is None else strided(array, steps)
        own.flags.writeable = False
        vars(fresh)[name] = own
    return fresh


def strided(array: npt.NDArray[Any], steps: list[int]) -> npt.NDArray[Any]:
    """Lay ``array`` out in memory with the element strides ``steps``, zeros in the gaps."""
    memory = np.zeros(_span(array.shape, steps), dtype=array.dtype)
    view = np.lib.stride_tricks.as_strided(
        memory, array.shape, [step * array.itemsize for step in steps]
    )
    view[...] = array
    return view
