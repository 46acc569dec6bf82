"""The backward pass: what torch.autograd.grad returns, without the imports that it makes."""

from __future__ import annotations

import sys

import pytest
import torch

from moe_routing.implementations.backward import gradients_of

A = torch.tensor([[1.0, -2.0, 0.5], [0.25, 4.0, -1.0]], requires_grad=True)
B = torch.tensor([2.0, -0.5, 1.5], requires_grad=True)
UNUSED = torch.ones(2, requires_grad=True)
COTANGENT = torch.tensor([[1.0, float("nan"), -0.0], [float("inf"), 2.0, -3.0]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_finds_the_gradients_that_torch_finds(dtype: torch.dtype) -> None:
    given = COTANGENT.to(dtype)
    due = torch.autograd.grad((A * B).to(dtype), [A, B, UNUSED], given, allow_unused=True)
    found = gradients_of((A * B).to(dtype), [A, B, UNUSED], given)
    assert found[2] is due[2] is None
    for one, other in zip(found[:2], due[:2], strict=True):
        torch.testing.assert_close(one, other, rtol=0.0, atol=0.0, equal_nan=True)


def test_it_runs_where_no_graph_is_made() -> None:
    output = A * B
    with torch.no_grad():
        (found,) = gradients_of(output, [B], torch.ones(2, 3))
    assert found is not None
    assert found.tolist() == [1.25, 2.0, -0.5]


def test_it_needs_no_sympy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.fx.experimental.symbolic_shapes", None)
    assert gradients_of(A * B, [A], torch.ones(2, 3))[0] is not None


def test_a_cotangent_of_another_shape_is_refused_as_by_torch() -> None:
    with pytest.raises(RuntimeError, match="Mismatch in shape"):
        gradients_of(A * B, [A], torch.ones(1, 3))
