"""Arrays of JAX, MLX, CuPy and others: a case's in their dtypes, and any library's as NumPy's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.implementations.tensors import TorchInputs, torch_tensor
from moe_routing.reference import RouterInputs
from moe_routing.reference.checks import shown

_MAKERS = ("asarray", "array")


def array_inputs(inputs: RouterInputs, library: Any) -> TorchInputs:
    """Make the arrays of one routing call in another library, absent ones None.

    ``library`` is a module with ``asarray`` or ``array`` and with its dtypes by name
    (``jax.numpy``, ``mlx.core``, ``cupy``), or a function that takes a ``__dlpack__`` thing
    (``tvm.nd.from_dlpack``). Dtypes are those of ``torch_inputs``, bfloat16 included; a function
    also gets the strides. Errors: ``ValueError`` for any other library.
    """
    make = _maker(library)
    return TorchInputs(
        **{
            name: make(name, array, inputs.dtype_of(name))
            for name, array in inputs.arrays().items()
        }
    )


def _maker(library: Any) -> Callable[[str, npt.NDArray[Any], str], Any]:
    for name in _MAKERS:
        if hasattr(library, name):
            made = getattr(library, name)
            return lambda _, array, dtype: made(np.array(array), dtype=_dtype(library, dtype))
    if not callable(library):
        raise ValueError(
            f"Expected library to be a module with asarray or array, such as jax.numpy, or a "
            f"function such as from_dlpack, but got {shown(library)}"
        )
    return lambda name, array, dtype: library(torch_tensor(name, array, dtype=dtype))


def _dtype(library: Any, name: str) -> Any:
    """Return a dtype of a library by its name. Errors: ``ValueError`` where it has none."""
    found = getattr(library, name, None)
    if found is None:
        raise ValueError(f"{library.__name__} has no dtype {name}: claim other dtypes")
    return found


def as_numpy(value: Any, *, copy: bool = True) -> npt.NDArray[Any]:
    """Copy an array of any library to NumPy, bfloat16 as float32, off its graph and its device.

    It may be a torch tensor, or have ``__array__``, or ``__dlpack__`` alone. Without ``copy``, for
    what is only compared, a tensor may share its memory. Errors: whatever the library raises.
    """
    if hasattr(value, "detach"):
        return _of_torch(value, copy=copy)
    if hasattr(value, "__dlpack__") and _is_foreign(value):
        from torch.utils.dlpack import from_dlpack

        return _of_torch(from_dlpack(value).clone(), copy=copy)
    array = np.array(value)
    foreign = array.dtype.kind not in "biuf"  # as NumPy sees the bfloat16 of other libraries
    return array.astype(np.float32) if foreign and array.dtype.name == "bfloat16" else array


def _of_torch(tensor: Any, *, copy: bool) -> npt.NDArray[Any]:
    native = tensor.detach()
    host = native.cpu()
    if "bfloat16" in str(host.dtype):
        host = host.float()
    return np.array(host.numpy(), copy=copy and host is native)  # else it is a copy already


def _is_foreign(value: Any) -> bool:
    """Return whether NumPy cannot read an array by itself: it has no way, or MLX's bfloat16."""
    if isinstance(value, np.ndarray):
        return False
    own_dtype = str(getattr(value, "dtype", "")).endswith(".bfloat16")  # JAX's is NumPy's
    return own_dtype or not hasattr(value, "__array__")
