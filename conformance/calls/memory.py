"""Memory: arrays laid out with given strides, and inputs in memory of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt

SPAN = 2**27
"""The most numbers that an array of a case may span in memory: 512 MiB of float32."""

Array = npt.NDArray[Any]
Packed = tuple[str, tuple[int, ...], bytes, list[int] | None]


class HasArrays(Protocol):
    """Inputs of a call: a frozen value, some of whose fields are arrays."""

    def arrays(self) -> dict[str, Array]:
        """Return the arrays by the names of their fields."""


Inputs = TypeVar("Inputs", bound=HasArrays)


def strided(array: Array, steps: Sequence[int]) -> Array:
    """Lay ``array`` out in memory with the element strides ``steps``, zeros in the gaps."""
    memory = np.zeros(span(array.shape, steps), dtype=array.dtype)
    view = np.lib.stride_tricks.as_strided(
        memory, array.shape, [step * array.itemsize for step in steps]
    )
    view[...] = array
    return view


def steps_of(array: Array) -> list[int] | None:
    """Return an array's element strides, or None if C-contiguous, reversed or too far apart."""
    if array.flags.c_contiguous or array.size == 0 or min(array.strides) < 0:
        return None
    steps = [step // array.itemsize for step in array.strides]
    return None if max([span(array.shape, steps), *steps]) > SPAN else steps


def span(shape: Sequence[int], steps: Sequence[int]) -> int:
    """Return how many numbers lie between the first of an array and the last, both included."""
    return 1 + sum((max(n, 1) - 1) * step for n, step in zip(shape, steps, strict=True))


def laid_like(array: Array, model: Array | None) -> Array:
    """Lay ``array`` out in memory like ``model``: in rows, transposed, with its gaps.

    It is laid out in rows without a model, or if the model's strides are negative or overlap.
    """
    if model is None or model.ndim != array.ndim or (steps := steps_of(model)) is None:
        return np.ascontiguousarray(array)
    alike = _like(steps, model.shape, array.shape)
    return np.ascontiguousarray(array) if alike is None else strided(array, alike)


def _like(steps: list[int], old: tuple[int, ...], new: tuple[int, ...]) -> list[int] | None:
    """Return the steps of the shape ``new`` with the gaps that ``steps`` leave in ``old``."""
    made, within, now = [0] * len(steps), 1, 1  # the extent of the axes so far, in old and in new
    for axis in sorted(range(len(steps)), key=lambda axis: (old[axis] == 1, steps[axis])):
        gap = steps[axis] - within
        if gap < 0 and old[axis] > 1:
            return None
        made[axis] = now + max(gap, 0)
        within, now = max(steps[axis], within) * old[axis], made[axis] * new[axis]
    return made


def with_changes(inputs: Inputs, **changes: Any) -> Inputs:
    """Return ``inputs`` with fields replaced, each array laid out like the one that it replaces.

    An array that replaces none is laid out in rows. Errors: ``ValueError``, as for the inputs.
    """
    models = inputs.arrays()
    laid = {
        name: laid_like(value, models.get(name)) if isinstance(value, np.ndarray) else value
        for name, value in changes.items()
    }
    made: Inputs = replace(cast(Any, inputs), **laid)
    return made


def with_fresh_arrays(inputs: Inputs) -> Inputs:
    """Return the same inputs in memory of their own, with the same strides."""
    return _with_arrays(inputs, {name: _fresh(each) for name, each in inputs.arrays().items()})


class Reused:
    """Arrays for one call after another: each is written over, and is the same object to a backend.

    A backend gets read-only views, as ever.
    """

    def __init__(self, inputs: HasArrays) -> None:
        self._memory = {name: _copied(each) for name, each in inputs.arrays().items()}
        self._views = {name: _read_only(each.view()) for name, each in self._memory.items()}

    def holding(self, inputs: Inputs) -> Inputs:
        """Return ``inputs``, arrays of the same shapes and types, in these arrays."""
        for name, values in inputs.arrays().items():
            self._memory[name][...] = values
        return _with_arrays(inputs, self._views)


def packed(inputs: HasArrays) -> tuple[HasArrays, dict[str, Packed]]:
    """Return inputs in the form in which they are pickled: an array alone loses its strides."""
    arrays = inputs.arrays()
    return _with_arrays(inputs, dict.fromkeys(arrays)), {
        name: (each.dtype.str, each.shape, each.tobytes(), steps_of(each))
        for name, each in arrays.items()
    }


def unpacked(bare: Inputs, arrays: dict[str, Packed]) -> Inputs:
    """Return the inputs that ``packed`` was given."""
    return _with_arrays(bare, {name: _restored(*each) for name, each in arrays.items()})


def _restored(dtype: str, shape: tuple[int, ...], data: bytes, steps: list[int] | None) -> Array:
    array = np.frombuffer(data, dtype=dtype).reshape(shape)
    return _read_only(array.copy() if steps is None else strided(array, steps))


def _fresh(array: Array) -> Array:
    return _read_only(_copied(array))


def _copied(array: Array) -> Array:
    steps = steps_of(array)
    return array.copy() if steps is None else strided(array, steps)


def _read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array


def _with_arrays(inputs: Inputs, arrays: dict[str, Any]) -> Inputs:
    """Return a copy of a frozen value with these arrays in it, which are not checked again."""
    made = object.__new__(type(inputs))
    vars(made).update(vars(inputs), **arrays)
    return made
