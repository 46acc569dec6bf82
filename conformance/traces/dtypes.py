"""The dtypes of recorded arrays: how each is read, and the format that its numbers have."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from moe_routing.reference.formats import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, FloatFormat

AnyArray = npt.NDArray[Any]

BFLOAT16_READ = "<u2"
"""How bfloat16 is read, which NumPy has not: as the upper halves of float32."""

OF_SAFETENSORS = {
    "BF16": "bfloat16",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
}
"""The dtypes of safetensors that are read, by their names in a header."""

_FORMATS = {each.name: each for each in (BFLOAT16, FLOAT16, FLOAT32, FLOAT64)}


def is_float(kind: str) -> bool:
    """Return whether a dtype is one of floating-point numbers."""
    return kind in _FORMATS


def format_of_kind(kind: str) -> FloatFormat:
    """Return the format of a floating-point dtype."""
    return _FORMATS[kind]


def kind_of_numpy(dtype: np.dtype[Any]) -> str | None:
    """Return the name of a dtype of NumPy, None where it is none that is read.

    Two bytes without a type are bfloat16: NumPy saves that of ``ml_dtypes`` so.
    """
    if dtype.kind == "V" and dtype.itemsize == 2 and dtype.names is None:
        return "bfloat16"
    name = dtype.newbyteorder("=").name
    return name if name in OF_SAFETENSORS.values() else None


Order = Literal["<", ">"]


def read_dtype(kind: str, order: Order = "<") -> np.dtype[Any]:
    """Return the dtype that the bytes of a ``kind`` are read as."""
    if kind == "bfloat16":
        return np.dtype(BFLOAT16_READ)
    return np.dtype(kind).newbyteorder(order)


def numbers(read: AnyArray, kind: str) -> AnyArray:
    """Return the numbers of what was read: bfloat16 as float32, all else as it is."""
    if kind != "bfloat16":
        return read
    wide = read.astype(np.uint32)
    wide <<= np.uint32(16)
    return wide.view(np.float32)
