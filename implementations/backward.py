"""The backward pass of torch, without the half a second of imports that its own way in makes.

``torch.autograd.grad`` compares the shape of a cotangent with sympy at hand, which it imports for
that. A pass that begins at one number needs no cotangent, so this one begins at such a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def gradients_of(
    output: Tensor, sources: Sequence[Tensor], cotangent: Tensor
) -> tuple[Tensor | None, ...]:
    """Return the gradients of ``sum output * cotangent``; None for what it does not depend on.

    Errors: those of ``torch.autograd.grad``.
    """
    import torch

    if output.shape != cotangent.shape or output.dtype != cotangent.dtype:  # it says what differs
        return torch.autograd.grad(output, sources, cotangent, allow_unused=True)
    with torch.enable_grad():
        number = _beginning().apply(output, cotangent)
    return torch.autograd.grad(number, sources, allow_unused=True)


@cache
def _beginning() -> Any:
    """Return the function whose value is a number, and whose gradient is the cotangent."""
    import torch

    class Beginning(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, output: Any, cotangent: Any) -> Any:
            context.save_for_backward(cotangent)
            return output.new_zeros(())

        @staticmethod
        def backward(context: Any, *_: Any) -> Any:
            (cotangent,) = context.saved_tensors
            return cotangent, None

    return Beginning
