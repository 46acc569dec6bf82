"""Tensors of a model as the arrays that the reference and the judge read, never rounded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from moe_routing.reference.formats import INPUT_FORMATS
from moe_routing.reference.inputs import OF_GATE

if TYPE_CHECKING:
    from torch import Tensor


class CannotRead(Exception):
    """A tensor that is not read as plain numbers; the message says which and why."""


def array(name: str, tensor: Tensor) -> npt.NDArray[Any]:
    """Return a tensor's numbers: float32, or int64. Errors: ``CannotRead``."""
    import torch

    if type(tensor) not in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer):
        raise CannotRead(f"{name} is a {type(tensor).__name__}, not a plain tensor")
    if tensor.is_meta:
        raise CannotRead(f"{name} has no data: it is on the meta device")
    if not tensor.is_floating_point():
        return tensor.detach().cpu().long().numpy()
    dtype = dtype_of(tensor)
    if dtype not in INPUT_FORMATS:
        raise CannotRead(f"{name} is of dtype {dtype}: {', '.join(INPUT_FORMATS)} are judged")
    return tensor.detach().float().cpu().numpy()


def dtype_of(tensor: Tensor) -> str:
    """Return the name of a tensor's dtype, as ``bfloat16``."""
    return str(tensor.dtype).rpartition(".")[2]


def of_dtype(kind: type[Any], dtype: str, arrays: dict[str, Any], **others: Any) -> Any:
    """Make inputs whose results are of ``dtype``, though some arrays may have more bits.

    A model may hold a gate, or hand over routing weights, in float32 next to hidden states of 16
    bits. Errors: ``ValueError``, as the inputs'.
    """
    made = kind(dtype="float32", **arrays, **others)
    object.__setattr__(made, "dtype", dtype)
    gate = [arrays[name] for name in OF_GATE if arrays.get(name) is not None]
    if hasattr(made, "gate_dtype") and not _holds_all(dtype, gate):
        object.__setattr__(made, "gate_dtype", "float32")
    return made


def _holds_all(dtype: str, arrays: Iterable[Any]) -> bool:
    return all(INPUT_FORMATS[dtype].represents(each).all() for each in arrays)


def tensors_of(block: Any) -> dict[str, Tensor]:
    """Return a module's parameters and buffers by name."""
    return dict(_tensors(block))


def _tensors(block: Any) -> Iterator[tuple[str, Tensor]]:
    yield from block.named_parameters(remove_duplicate=False)
    yield from block.named_buffers(remove_duplicate=False)


def rows(tensor: Tensor) -> Tensor:
    """Return ``[T, H]`` of hidden states in any shape."""
    return tensor.reshape(-1, tensor.shape[-1])


def picked(many: int, most: int) -> npt.NDArray[np.int64]:
    """Return at most ``most`` numbers below ``many``, evenly spread, from the first to the last."""
    if many <= most:
        return np.arange(many)
    return np.unique(np.linspace(0, many - 1, most).round().astype(np.int64))
