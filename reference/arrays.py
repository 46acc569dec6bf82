"""Arrays as they come in: read, checked against their shapes, and never rounded."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.reference.checks import shown
from moe_routing.reference.formats import INPUT_FORMATS

AnyArray = npt.NDArray[Any]


def freeze(owner: object, shapes: Mapping[str, str], *, integers: Collection[str] = ()) -> None:
    """Make the array fields of the dataclass ``owner`` read-only, exact and of fitting shapes.

    ``shapes`` gives each field a letter per axis; ``integers`` become int64, the others
    float32. A field with a default may be None. Errors: ``ValueError`` naming the field.
    """
    for name in shapes:
        value = getattr(owner, name)
        if value is None and hasattr(type(owner), name):
            continue  # a dataclass keeps a default on the class
        kind = np.int64 if name in integers else np.float32
        if type(value) is np.ndarray and value.dtype == kind and not value.flags.writeable:
            continue  # as another owner has left it
        array = convert(name, value, kind).view()
        array.flags.writeable = False
        object.__setattr__(owner, name, array)
    check_shapes(present(owner, shapes), shapes)


def present(owner: object, names: Collection[str]) -> dict[str, AnyArray]:
    """Return the fields of ``owner`` among ``names`` that are not None, by name."""
    values = vars(owner)
    return {name: values[name] for name in names if values[name] is not None}


def convert(name: str, value: object, kind: type[np.generic]) -> AnyArray:
    """Return ``value`` as an array of ``kind``, float32 or int64, exactly.

    An array of that dtype is returned itself. Errors: ``ValueError`` naming the argument
    and its dtype, or the first value that ``kind`` does not hold.
    """
    array = _read(name, value)
    if array.dtype == kind:
        return array
    integers = kind is np.int64
    if array.dtype.kind not in ("iu" if integers and array.size else "fiu"):  # [] is float64
        raise ValueError(
            f"Expected {name} to be an array of {kind.__name__} but got {shown(value)} "
            f"(dtype={array.dtype}): pass {'integers' if integers else 'real numbers'}"
        )
    with np.errstate(over="ignore"):
        converted: AnyArray = array.astype(kind)
    _check_same(name, array, converted)
    return converted


def check_shapes(arrays: Mapping[str, AnyArray], shapes: Mapping[str, str]) -> None:
    """Raise ``ValueError`` unless the axes of one letter agree; only T may be empty."""
    if not _fit(arrays, shapes):
        _refuse(arrays, shapes)


def _fit(arrays: Mapping[str, AnyArray], shapes: Mapping[str, str]) -> bool:
    """Return whether the axes of one letter surely agree, and none but T is empty."""
    sizes = {"1": 1}
    for name, array in arrays.items():
        letters, shape = shapes[name], array.shape
        if len(letters) != len(shape):
            return False
        for letter, size in zip(letters, shape, strict=True):
            if sizes.setdefault(letter, size) != size or (size == 0 and letter != "T"):
                return False
    return True


def _refuse(arrays: Mapping[str, AnyArray], shapes: Mapping[str, str]) -> None:
    """Raise ``ValueError`` for the first array that does not fit."""
    sizes = {"1": 1}
    for name, array in arrays.items():
        letters, shape = shapes[name], array.shape
        known = {x: sizes[x] for x in letters if x in sizes}
        own = dict(zip(letters, shape, strict=False))
        if len(shape) != len(letters) or any(own[x] != size for x, size in known.items()):
            raise ValueError(_misfit(name, letters, known, shape))
        if empty := [x for x in letters if x != "T" and own[x] == 0]:
            raise ValueError(
                f"Cannot have {empty[0]}=0 in {name} of shape {shape}: only T may be empty"
            )
        sizes |= own


def check_exact(name: str, array: AnyArray, dtype: str, wider: str = "") -> None:
    """Raise ``ValueError`` naming the first value that a cast to ``dtype`` would round.

    ``wider`` is the argument, if there is one, with which the array would be float32.
    """
    if dtype == "float32":
        return
    form = INPUT_FORMATS[dtype]
    if not form.holds(array):
        held = form.represents(array)
        raise ValueError(
            f"Cannot have {_first(name, array, ~held)} in dtype={dtype!r}: "
            f"values must be exact there; round them with FORMATS[{dtype!r}].round(...)"
            f"{f', or set {wider}' * bool(wider)}"
        )


def _read(name: str, value: object) -> AnyArray:
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # what torch and ragged lists raise
        raise ValueError(
            f"Expected {name} to be an array but got {shown(value)}, which NumPy cannot read: pass "
            "a NumPy array with rows of equal length, as x.detach().float().numpy() for a tensor x"
        ) from error


def _misfit(name: str, letters: str, known: Mapping[str, int], shape: tuple[int, ...]) -> str:
    sizes = " and ".join(f"{x}={size}" for x, size in known.items() if x != "1")
    wanted = f"[{', '.join(letters)}]" + (f" with {sizes}" if sizes else "")
    return f"Expected {name} of shape {wanted} but got shape {shape}"


def _check_same(name: str, array: AnyArray, converted: AnyArray) -> None:
    if array.dtype.kind == "f":
        same = (converted == array) | np.isnan(array)
    else:  # Python compares an integer with any number exactly; NumPy goes through float64
        same = np.asarray(converted.astype(object) == array.astype(object))
    if not same.all():
        kind = converted.dtype.name
        fix = (
            "round it first with .astype(numpy.float32)" if kind == "float32" else "use ids < 2**63"
        )
        raise ValueError(f"Cannot have {_first(name, array, ~same)}: not exact in {kind}; {fix}")


def _first(name: str, array: AnyArray, bad: npt.NDArray[np.bool_]) -> str:
    where = tuple(int(i) for i in np.argwhere(bad)[0])
    return f"{name}{list(where) or ''}={array[where].item()!r}"
