"""Torch tensors from a case's arrays, with the drawn strides, watched for mutation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from moe_routing.implementations.backend_errors import require_device
from moe_routing.reference import (
    ExpertsInputs,
    LayerInputs,
    RouterInputs,
    SharedExpertInputs,
)
from moe_routing.reference.layer import OF_EXPERTS, OF_SHARED

if TYPE_CHECKING:
    import torch

_watched: ContextVar[list[Watched] | None] = ContextVar("watched", default=None)
_leaves: ContextVar[dict[str, Any] | None] = ContextVar("leaves", default=None)

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A tensor that a backend was given, and the array that it must still equal.

    Where there are gaps between its elements, ``memory`` is the tensor of all, gaps
    included, and ``before`` a copy of that as it was; else both are None.
    """

    name: str
    tensor: Any
    array: npt.NDArray[Any]
    memory: Any = None
    before: Any = None


@dataclass(frozen=True, kw_only=True, eq=False)
class TorchInputs:
    """``RouterInputs`` as tensors of their own dtype and strides; absent arrays are None."""

    hidden: torch.Tensor
    gate_weight: torch.Tensor
    gate_bias: torch.Tensor | None = None
    selection_bias: torch.Tensor | None = None
    gate_delta: torch.Tensor | None = None
    per_expert_scale: torch.Tensor | None = None
    hidden_scale: torch.Tensor | None = None
    expert_table: torch.Tensor | None = None
    token_ids: torch.Tensor | None = None
    logits: torch.Tensor | None = None


def torch_inputs(inputs: RouterInputs, device: str = "cpu") -> TorchInputs:
    """Make the tensors of one routing call, each of its own dtype (``inputs.dtype_of``).

    That is ``inputs.dtype``, but float32 for the selection bias and, where ``inputs.gate_dtype``
    says so, for gate, linear bias, delta and given logits.
    Every tensor has the strides of its array, with NaN in the gaps between elements, and
    is watched: the suite compares it with the array after the call. On another device than
    the CPU, 16-bit products are from now on added up in float32 (torch's
    ``allow_bf16_reduced_precision_reduction`` and its twin are turned off).
    """
    return TorchInputs(
        **{
            name: torch_tensor(name, array, dtype=inputs.dtype_of(name), device=device)
            for name, array in inputs.arrays().items()
        }
    )


def torch_shared_inputs(inputs: SharedExpertInputs, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Make the tensors of one shared-expert call, by field name, as ``torch_inputs`` does."""
    return {
        name: torch_tensor(name, array, dtype=inputs.dtype, device=device)
        for name, array in inputs.arrays().items()
    }


def torch_experts_inputs(inputs: ExpertsInputs, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Make the tensors of one call of experts, by field name, as ``torch_inputs`` does."""
    return {
        name: torch_tensor(name, array, dtype=dtype_of(name, array, inputs.dtype), device=device)
        for name, array in inputs.arrays().items()
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class TorchLayer:
    """``LayerInputs`` as tensors: the router's, and by field name the experts' and the shared."""

    router: TorchInputs
    experts: dict[str, torch.Tensor]
    shared: dict[str, torch.Tensor]


def torch_layer_inputs(inputs: LayerInputs, device: str = "cpu") -> TorchLayer:
    """Make the tensors of one call of a layer, as ``torch_inputs`` does.

    Those of experts have the names of ``ExpertsInputs``, the shared expert's those of
    ``SharedExpertInputs``; there are none where there is none.
    """

    def made(names: dict[str, str]) -> dict[str, torch.Tensor]:
        arrays = inputs.arrays()
        return {
            theirs: torch_tensor(own, arrays[own], dtype=inputs.dtype, device=device)
            for own, theirs in names.items()
            if own in arrays
        }

    router = torch_inputs(inputs.router, device)
    return TorchLayer(router=router, experts=made(OF_EXPERTS), shared=made(OF_SHARED))


def torch_tensor(
    name: str, array: npt.NDArray[Any], *, dtype: str, device: str = "cpu"
) -> torch.Tensor:
    """Make one watched tensor with the array's values and element strides."""
    import torch

    if device != "cpu":
        require_device(device)
        _add_in_float32()
    memory, kind = None, getattr(torch, dtype)
    strides, span = _layout(array.shape, array.strides, array.itemsize)
    if strides is None:
        tensor = torch.empty(array.shape, dtype=kind, device=device)
    elif span == array.size:
        tensor = torch.empty_strided(array.shape, strides, dtype=kind, device=device)
    else:
        gaps = 0 if array.dtype.kind == "i" else float("nan")
        memory = torch.full((span,), gaps, dtype=kind, device=device)
        tensor = memory.as_strided(array.shape, strides)
    if device == "cpu" and array.dtype == _IN_NUMPY.get(dtype):
        tensor.numpy()[...] = array
    else:
        tensor.copy_(torch.from_numpy(np.array(array)))
    if (watched := _watched.get()) is not None:
        before = None if memory is None else memory.clone()
        watched.append(Watched(name=name, tensor=tensor, array=array, memory=memory, before=before))
    return leaf(name, tensor)


_IN_NUMPY = {"float32": np.float32, "int64": np.int64}
"""The dtypes that arrays of a case have, which need no conversion to those of tensors."""


@lru_cache(maxsize=1024)
def _layout(
    shape: tuple[int, ...], steps: tuple[int, ...], itemsize: int
) -> tuple[tuple[int, ...] | None, int]:
    """Return an array's strides in elements, and how many elements they span.

    Strides that a tensor cannot have, and those of no element, are None.
    """
    strides = tuple(step // itemsize for step in steps)
    span = 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    usual = 0 in shape or min(strides, default=1) < 1
    return (None if usual else strides), span


def _add_in_float32() -> None:
    """Have the parts of a 16-bit product on a GPU added in float32, not in 16 bits again.

    torch permits the latter by default, and cuBLAS uses it where it splits a long sum:
    docs/findings/torch.md#partial-sums-in-16-bits.
    """
    import torch

    products = torch.backends.cuda.matmul
    products.allow_bf16_reduced_precision_reduction = False
    products.allow_fp16_reduced_precision_reduction = False


@contextmanager
def watching_tensors() -> Iterator[list[Watched]]:
    """Collect every tensor that ``torch_tensor`` makes inside the block."""
    made: list[Watched] = []
    token = _watched.set(made)
    try:
        yield made
    finally:
        _watched.reset(token)


@contextmanager
def differentiating() -> Iterator[dict[str, Any]]:
    """Have every floating-point tensor made inside the block require a gradient; collect them."""
    made: dict[str, Any] = {}
    token = _leaves.set(made)
    try:
        yield made
    finally:
        _leaves.reset(token)


def leaf(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor that stands for the input ``name``: its gradient is that of the input.

    ``torch_inputs`` makes leaves; an adapter that copies them into a module's own parameters
    names those. Outside ``differentiating`` nothing happens.
    """
    leaves = _leaves.get()
    if leaves is not None and tensor.is_floating_point():
        leaves[name] = tensor.requires_grad_()
    return tensor


def parameter(name: str, tensor: torch.Tensor) -> torch.nn.Parameter:
    """Return the input ``name`` as a module's parameter, whose gradient is that of the input."""
    from torch.nn import Parameter

    made = Parameter(tensor.detach(), requires_grad=False)
    leaf(name, made)
    return made


def without_graph(function: Function) -> Function:
    """Run a function as in inference, without a graph; inside ``differentiating``, with one."""
    import torch

    if _leaves.get() is not None:
        return function

    def run(*args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            return function(*args, **kwargs)

    return cast(Function, run)


def dtype_of(name: str, array: npt.NDArray[Any], dtype: str) -> str:
    """Return the dtype of an input of experts: integers, or ``dtype``."""
    return "int64" if array.dtype.kind == "i" else dtype
