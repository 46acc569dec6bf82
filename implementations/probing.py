"""Probing experts: the routes of a whole block, read off what it makes of experts that we give.

For a block that has no router function: hidden states go in, and only the weighted sum of its
experts comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.implementations.foreign_arrays import as_numpy
from moe_routing.implementations.layouts import RoutingMap

Expert = Callable[..., Any]
"""One expert: the hidden states ``[n, H]`` of its tokens go in, as many rows come out."""


def probed_routes(
    run: Callable[[Sequence[Expert]], Any], *, num_experts: int, num_tokens: int
) -> RoutingMap:
    """Return the routes of a block that calls its experts one by one.

    ``run(experts)`` puts E experts into the block, runs it on the hidden states of the call and
    returns its output ``[T, H]``. It is run twice for every H experts: once with experts that
    answer 1 in a column of their own, which shows their weights, once with NaN there, which
    shows who was chosen, a weight of 0 included. The block must give the same routes each time,
    and may do nothing to its experts' outputs but to weigh and to add them. Weights have the
    precision in which it adds, which is that of the hidden states in most blocks.
    Errors: ``ValueError`` for an output of another shape.
    """
    weights = np.zeros((num_tokens, num_experts), dtype=np.float32)
    chosen = np.zeros((num_tokens, num_experts), dtype=bool)
    first = 0
    while first < num_experts:
        found = _output(run, num_experts, num_tokens, first, 1.0)
        marked = _output(run, num_experts, num_tokens, first, float("nan"))
        window = slice(first, min(first + found.shape[1], num_experts))
        width = window.stop - window.start
        weights[:, window], chosen[:, window] = found[:, :width], np.isnan(marked[:, :width])
        first = window.stop
    return RoutingMap(probs=np.where(chosen, weights, 0), routing_map=chosen)


def unit_rows(ids: Any, library: Any) -> Any:
    """Return what experts that take all tokens with their ``ids [..., K]`` answer: ``[..., K, K]``.

    Slot k answers 1 in column k, so that the block's weighted sum over slots is ``[..., K]``, its
    weights in the order of ``ids``. ``library`` is the module of the array: ``torch``,
    ``mlx.core`` or ``jax.numpy``. In float32, so that a block's own cast rounds nothing.
    """
    top_k = ids.shape[-1]
    unit = library.eye(top_k, dtype=library.float32)
    return library.broadcast_to(unit, (*ids.shape, top_k))


def _output(
    run: Callable[[Sequence[Expert]], Any],
    num_experts: int,
    num_tokens: int,
    first: int,
    mark: float,
) -> npt.NDArray[Any]:
    """Return the block's output where each expert from ``first`` on marks a column of its own."""
    experts = [_expert(number - first, mark) for number in range(num_experts)]
    output = as_numpy(run(experts))
    if output.ndim < 2 or output.size != num_tokens * output.shape[-1] or not output.shape[-1]:
        raise ValueError(
            f"Expected the block to return [T, H] for T={num_tokens} but got {output.shape}"
        )
    return output.reshape(num_tokens, output.shape[-1]).astype(np.float32)


def _expert(column: int, mark: float) -> Expert:
    """Return an expert that answers ``mark`` in one column, if it has that, and 0 elsewhere."""

    def answers(hidden: Any, *_: Any, **__: Any) -> Any:
        there = 0 <= column < hidden.shape[-1]
        rows = hidden + 0
        if _never_changes(rows):
            rows = rows.at[...].set(0)
            return rows.at[..., column].set(mark) if there else rows
        rows[...] = 0
        if there:
            rows[..., column] = mark
        return rows

    return answers


def _never_changes(array: Any) -> bool:
    """Return whether an array is one of JAX, which is set by ``at`` alone."""
    return hasattr(array, "at") and hasattr(array.at[...], "set")
