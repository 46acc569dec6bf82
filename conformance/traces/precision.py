"""The precision that recorded numbers have: that of their dtype, or what is left of it.

NumPy has no bfloat16, so bfloat16 tensors are mostly saved as float32. Numbers that a narrower
format holds, all of them, are taken to be of that format.
"""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.traces.dtypes import AnyArray, format_of_kind
from moe_routing.reference.formats import BFLOAT16, FLOAT16, FLOAT32, Bools, FloatFormat

_NARROWER = (BFLOAT16, FLOAT16, FLOAT32)
"""The formats that numbers of a wider dtype may be of, the coarsest first."""


def precision_of(values: AnyArray, kind: str) -> FloatFormat:
    """Return the coarsest format that holds all ``values`` of a dtype."""
    own = format_of_kind(kind)
    for each in _NARROWER:
        if each.precision < own.precision and bool(each.represents(values).all()):
            return each
    return own


def rows_held(values: AnyArray, form: FloatFormat) -> Bools:
    """Return the rows ``[n]`` of which a format holds every number."""
    held = form.represents(values)
    return np.ones(len(values), dtype=bool) if held.all() else np.asarray(held.all(axis=1))
