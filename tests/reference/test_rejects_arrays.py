"""What arrays refuse, and how: what is no number, and what storage would round."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from refusals import assert_refused
from small_inputs import HIDDEN, given, shared

from moe_routing.reference import (
    RouterInputs,
)

FRACTION = 1 + 2**-8
SHAPES = {"hidden": (3, 4), "gate_weight": (8, 4), "gate_delta": (8, 4), "hidden_scale": (4,)}


class Unreadable:
    """What NumPy meets in a tensor that is not its own: an array interface that raises."""

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        raise TypeError("Got unsupported ScalarType BFloat16")


NO_NUMBERS = {
    "None": (None, ["None"]),
    "text": ("hidden", ["float32", "<U6", "'hidden'"]),
    "strings": ([["1.0"]], ["float32", "<U3"]),
    "complex": (HIDDEN * 1j, ["float32", "complex64"]),
    "complex list": ([[1j]], ["float32", "complex128"]),
    "objects": (HIDDEN.astype(object), ["float32", "object"]),
    "an object": ([[object()]], ["float32", "object"]),
    "booleans": ([[True]], ["float32", "bool", "[[True]]"]),
    "dates": (np.zeros((1, 1), "datetime64[s]"), ["float32", "datetime64"]),
    "ragged": ([[1.0, 2.0], [3.0]], ["NumPy array", "equal length", "[[1.0, 2.0], [3.0]]"]),
    "unreadable": (Unreadable(), ["NumPy array", "Unreadable", "x.detach().float().numpy()"]),
    "bfloat16": (torch.ones(1, 1).bfloat16(), ["tensor", "x.detach().float().numpy()"]),
    "gradient": (torch.ones(1, 1, requires_grad=True), ["tensor", "x.detach().float().numpy()"]),
}
"""What is no array of real numbers, with fragments of the refusal."""

ROUNDED = {
    "float64": (np.full((3, 4), 0.1), ["[0, 0]=0.1", "float32"]),
    "overflow": ([[1e300]], ["[0, 0]=1e+300", "float32"]),
    "list": ([[1.0, 0.1]], ["[0, 1]=0.1", ".astype(numpy.float32)"]),
    "int": ([[2**24 + 1]], ["[0, 0]=16777217", "float32"]),
    "int64": (np.full((3, 4), 2**53 + 1), ["[0, 0]=9007199254740993", "float32"]),
    "largest int64": ([[2**63 - 1]], ["[0, 0]=9223372036854775807", "float32"]),
    "uint64": (np.full((1, 1), 2**64 - 1, np.uint64), ["[0, 0]=18446744073709551615"]),
}
"""What float32 would round, with fragments of the refusal."""


@pytest.mark.parametrize("bad", [*NO_NUMBERS, *ROUNDED])
def test_every_array_refuses_what_is_no_number_or_would_be_rounded(bad: str) -> None:
    value, fragments = {**NO_NUMBERS, **ROUNDED}[bad]
    assert_refused(lambda: given(hidden=value), "hidden", *fragments)
    assert_refused(lambda: given(gate_weight=value), "gate_weight", *fragments)
    assert_refused(lambda: shared(hidden=value), "hidden", *fragments)
    assert_refused(lambda: shared(down_proj=value), "down_proj", *fragments)
    assert_refused(lambda: RouterInputs.from_logits(value), "logits", *fragments)
    if value is not None:
        assert_refused(lambda: given(gate_delta=value), "gate_delta", *fragments)
        assert_refused(lambda: shared(gate=value), "gate", *fragments)


@pytest.mark.parametrize(
    "value", [HIDDEN.tolist(), HIDDEN.astype(int), torch.ones(3, 4), torch.ones(3, 4).half()]
)
def test_what_numpy_reads_without_rounding_is_taken(value: Any) -> None:
    np.testing.assert_array_equal(given(hidden=value).hidden, HIDDEN)
    np.testing.assert_array_equal(RouterInputs.from_logits(value).logits, HIDDEN)
    wide = given(hidden=np.full((3, 4), 2**62)).hidden
    assert (wide == 2.0**62).all(), "an integer that float32 holds is exact"


@pytest.mark.parametrize("name", ["logits", *SHAPES, "gate_bias", "per_expert_scale"])
@pytest.mark.parametrize(
    ("dtype", "value"), [("bfloat16", FRACTION), ("float16", 1 + 2**-11), ("float16", 65536.0)]
)
def test_values_that_the_storage_dtype_would_round_are_refused(
    name: str, dtype: str, value: float
) -> None:
    array = np.ones({**SHAPES, "logits": (3, 8)}.get(name, (8,)), np.float32)
    array.flat[1] = value
    where = "[0, 1]" if array.ndim == 2 else "[1]"
    fragments = f"{name}{where}={value!r}", f"dtype={dtype!r}", "exact"
    given(**{name: array})
    assert_refused(lambda: given(**{name: array}, dtype=dtype), *fragments)
    if name == "logits":
        assert_refused(lambda: RouterInputs.from_logits(array, dtype=dtype), *fragments)
    if name == "hidden":
        assert_refused(lambda: shared(hidden=array, dtype=dtype), *fragments)


def test_a_selection_bias_is_float32_whatever_the_storage_dtype() -> None:
    bias = np.full(8, 0.1, np.float32)
    assert given(selection_bias=bias, dtype="bfloat16").selection_bias.tolist() == bias.tolist()
