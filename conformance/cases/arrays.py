"""The arrays of a case file: read exactly, or refused with the name and the value."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.memory import SPAN, span, strided
from moe_routing.reference.checks import counted, is_number, shown
from moe_routing.reference.jsonform import from_json

_KEYS = ("shape", "values", "hex", "steps")

Array = npt.NDArray[Any]


def read_array(name: str, data: dict[str, Any], dtype: type[np.generic]) -> Array:
    """Return an array of a case file, no value of which is rounded. Errors: ``ValueError``."""
    if unknown := sorted(set(data) - set(_KEYS)):
        raise ValueError(f"{name} has the key {unknown[0]!r}, but should have {', '.join(_KEYS)}")
    shape = _shape(name, data)
    array = (_from_hex if "hex" in data else _from_values)(name, data, shape, dtype)
    return _laid_out(name, array, data["steps"]) if "steps" in data else array


def _shape(name: str, data: dict[str, Any]) -> list[int]:
    shape: list[int] = data["shape"]
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(
            f"{name} has the shape {shown(shape)}, but should have integers of 0 or more"
        )
    return shape


def _from_hex(name: str, data: dict[str, Any], shape: list[int], dtype: type[np.generic]) -> Array:
    try:
        held = bytes.fromhex(data["hex"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} has a hex that is no pairs of hexadecimal digits") from error
    needed = math.prod(shape) * np.dtype(dtype).itemsize
    if len(held) != needed:
        raise ValueError(f"{name} has {len(held)} bytes, but its shape {shape} needs {needed}")
    return np.frombuffer(held, dtype=dtype).reshape(shape)


def _from_values(
    name: str, data: dict[str, Any], shape: list[int], dtype: type[np.generic]
) -> Array:
    given = data["values"]
    if not isinstance(given, list):
        raise ValueError(f"{name} has the values {shown(given)}, but should have a list")
    if len(given) != math.prod(shape):
        held = counted(len(given), "value")
        raise ValueError(f"{name} has {held}, but its shape {shape} needs {math.prod(shape)}")
    numbers = [_number(name, value, dtype) for value in given]
    try:
        with np.errstate(over="ignore"):
            array = np.array(numbers, dtype=dtype)
    except OverflowError as error:
        raise ValueError(f"{name} has a value beyond {dtype.__name__}") from error
    for value, stored in zip(numbers, array.tolist(), strict=True):
        if stored != value and not (stored != stored and value != value):
            near = f"; {stored!r} is the nearest that is" if math.isfinite(stored) else ""
            raise ValueError(f"{name} has {value!r}, which is no {dtype.__name__}{near}")
    return array.reshape(shape)


def _number(name: str, value: Any, dtype: type[np.generic]) -> float:
    number = from_json(value)
    whole = issubclass(dtype, np.integer)
    if not is_number(number) or (whole and not isinstance(number, int)):
        kind = "an integer" if whole else 'a number, "nan", "inf" or "-inf"'
        got = "a null" if value is None else shown(value)
        raise ValueError(f"{name} has {got} among its values, but should have {kind}")
    return number


def _laid_out(name: str, array: Array, steps: Any) -> Array:
    """Lay ``array`` out with the steps of a file, which may be anyone's. Errors: ``ValueError``."""
    wrong = f"{name} has the steps {shown(steps)}, but should"
    listed = isinstance(steps, list) and all(type(step) is int and step >= 0 for step in steps)
    if not listed or len(steps) != array.ndim:
        raise ValueError(f"{wrong} be {array.ndim} integers of 0 or more, one an axis")
    if max([span(array.shape, steps), *steps]) > SPAN:
        raise ValueError(f"{wrong} lie within {SPAN} numbers")
    view = strided(array, steps)
    if view.tobytes() != array.tobytes():  # one value was written over another
        raise ValueError(f"{wrong} have a place for each value")
    return view
