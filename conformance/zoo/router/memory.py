"""Memory misread: what a kernel reads if it assumes another dtype or other strides."""

from __future__ import annotations

import ctypes

import numpy as np

from moe_routing.conformance.zoo.router.functions import Array


def as_rows(array: Array) -> Array:
    """Read ``array`` from its first element on as if it were contiguous."""
    if array.size == 0 or array.flags.c_contiguous:
        return array
    strides = np.empty(array.shape, array.dtype).strides
    return np.lib.stride_tricks.as_strided(array, array.shape, strides).copy()


def reinterpreted(values: Array, stored: str, read: str) -> Array:
    """Store float32 ``values`` as ``stored``, and read their bytes as ``read``.

    Memory past the end of a buffer that is too short reads as 0.
    """
    buffer = _bytes(values, stored)
    wanted = values.size * (4 if read == "float32" else 2)
    buffer = (buffer + bytes(max(0, wanted - len(buffer))))[:wanted]
    if read == "float32":
        return np.frombuffer(buffer, np.float32).reshape(values.shape)
    high = np.frombuffer(buffer, np.uint16).astype(np.uint32) << 16
    return high.view(np.float32).reshape(values.shape)


def _bytes(values: Array, stored: str) -> bytes:
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return bits.tobytes() if stored == "float32" else (bits >> 16).astype(np.uint16).tobytes()


def overwrite(array: Array, values: Array) -> None:
    """Write ``values`` over a contiguous read-only ``array``, as a kernel with its pointer can."""
    if array.flags.c_contiguous:
        source = np.ascontiguousarray(values, array.dtype)
        ctypes.memmove(array.ctypes.data, source.ctypes.data, array.nbytes)
