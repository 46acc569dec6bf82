"""Steps of a router in 16 bits, each of which stores its result in the dtype of the inputs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.reference.formats import FloatFormat

_LANES = 8
_NEAR = -0.5


def put(values: npt.ArrayLike, form: FloatFormat) -> Array:
    """Store float32 values in ``form``."""
    return form.round(values).astype(np.float32)


def at_once(values: Array, form: FloatFormat) -> Array:
    """Add up in float32 and store the sum, as eager code does."""
    return put(values.sum(axis=1, keepdims=True), form)


def in_pairs(values: Array, form: FloatFormat) -> Array:
    """Add up pairs of stored sums, as a tree of lanes does."""
    while values.shape[1] > 1:
        values = np.pad(values, ((0, 0), (0, values.shape[1] % 2)))
        values = put(values[:, ::2] + values[:, 1::2], form)
    return values


def running(values: Array, form: FloatFormat) -> Array:
    """Add up one after the other, eight at most, and then these sums in pairs.

    Of B sums, each takes every B-th number, as threads do that share a row.
    """
    values = np.pad(values, ((0, 0), (0, -values.shape[1] % _LANES)))
    runs = values.reshape(len(values), _LANES, -1)
    total = runs[:, 0]
    for each in range(1, _LANES):
        total = put(total + runs[:, each], form)
    return in_pairs(total, form)


def exact(z: Array, form: FloatFormat) -> Array:
    """Exponentiate in float32, and store."""
    return put(np.exp(z), form)


def approximate(z: Array, form: FloatFormat) -> Array:
    """Exponentiate a unit off before the store, too high near 0 and too low below.

    PTX documents two units for ``ex2.approx`` in bfloat16 and 2.14 in float16.
    """
    unit = np.float32(form.unit_roundoff)
    return put(np.exp(z) * (1 + np.where(z > _NEAR, unit, -unit)), form)


def approximate_below(z: Array, form: FloatFormat) -> Array:
    """Exponentiate as far off, too low near 0 and too high below."""
    unit = np.float32(form.unit_roundoff)
    return put(np.exp(z) * (1 - np.where(z > _NEAR, unit, -unit)), form)


def rows_below(z: Array, form: FloatFormat) -> tuple[Array, Array]:
    """Return the rows less their maxima, stored, and the maxima."""
    most = z.max(axis=1, keepdims=True)
    return put(z - most, form), most
