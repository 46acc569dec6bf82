"""Arrays of other libraries: made of a case, and read back, bfloat16 included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from adapter_calls import inputs_of

from moe_routing.conformance.trial.boundary import Malformed, record, to_numpy
from moe_routing.implementations import array_inputs, as_numpy
from moe_routing.reference import RouterInputs

torch = pytest.importorskip("torch")

VALUES = [[0.5, -2.0, 3.0], [1.0, 0.0, 4.0]]


class Exported:
    """An array that can be had by DLPack alone."""

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor
        self.dtype, self.shape = f"lib.{str(tensor.dtype)[6:]}", tuple(tensor.shape)

    def __dlpack__(self, **how: Any) -> Any:
        return self._tensor.__dlpack__(**how)

    def __dlpack_device__(self) -> Any:
        return self._tensor.__dlpack_device__()


class Listed:
    """An array that can be had by ``__array__`` alone."""

    dtype, shape = np.dtype("float32"), (2, 3)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array(VALUES, dtype=np.float32)


def library(name: str) -> Any:
    return pytest.importorskip(name)


def arrays_of(name: str) -> Any:
    if name == "dlpack":
        return Exported(torch.tensor(VALUES, dtype=torch.bfloat16))
    if name == "array":
        return Listed()
    if name == "torch":
        return torch.tensor(VALUES, dtype=torch.bfloat16, requires_grad=True)
    xp = library(name)
    return xp.array(VALUES, dtype=xp.bfloat16)


WAYS = pytest.mark.parametrize("name", ["dlpack", "array", "torch", "mlx.core", "jax.numpy"])


@WAYS
def test_any_array_is_read_and_is_a_copy(name: str) -> None:
    given = arrays_of(name)
    read = as_numpy(given)
    assert read.dtype == np.float32
    assert read.tolist() == VALUES
    read[:] = 7.0
    assert as_numpy(given).tolist() == VALUES


@WAYS
def test_the_suite_reads_it_and_says_what_it_was(name: str) -> None:
    given = arrays_of(name)
    assert to_numpy("weights", given).tolist() == VALUES
    assert record("weights", given).shape == (2, 3)
    assert record("weights", given).dtype == ("float32" if name == "array" else "bfloat16")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["mlx.core", "jax.numpy", "torch", "from_dlpack"])
def test_a_case_is_made_in_the_dtypes_of_a_library(name: str, dtype: str) -> None:
    xp = torch.from_dlpack if name == "from_dlpack" else library(name)
    inputs = inputs_of("gate", dtype=dtype)
    given = array_inputs(inputs, xp)
    assert str(given.hidden.dtype).rpartition(".")[2] == dtype
    assert str(given.selection_bias.dtype).rpartition(".")[2] == "float32"
    assert given.gate_bias is None
    for field, array in inputs.arrays().items():
        assert np.array_equal(as_numpy(getattr(given, field)), array)


def test_ids_are_integers() -> None:
    table = np.array([[1], [0]])
    inputs = RouterInputs(
        hidden=np.ones((2, 1), np.float32),
        gate_weight=np.ones((2, 1), np.float32),
        expert_table=table,
        token_ids=np.array([0, 1]),
    )
    assert array_inputs(inputs, np).token_ids.dtype == np.int64


@pytest.mark.parametrize("given", [None, "jax", 3])
def test_what_is_no_library_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match=r"^Expected library to be a module .* but got"):
        array_inputs(inputs_of(), given)


def test_a_dtype_that_a_library_lacks_is_named() -> None:
    with pytest.raises(ValueError, match="numpy has no dtype bfloat16: claim other dtypes"):
        array_inputs(inputs_of(dtype="bfloat16"), np)


def test_what_is_no_array_is_refused_by_the_suite() -> None:
    with pytest.raises(Malformed, match="weights cannot be read as an array"):
        to_numpy("weights", Exported(torch.tensor(1.0).to_sparse()))


def test_float32_in_the_other_byte_order_is_float32() -> None:
    other = np.ones((2, 3), np.dtype(np.float32).newbyteorder())
    assert record("weights", other).dtype == "float32"
