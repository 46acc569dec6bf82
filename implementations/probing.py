"""Probing experts: the routes of a whole block, read off what it makes of experts that we give.

For a block that has no router function: hidden states go in, and only the weighted sum of its
experts comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.implementations.foreign_arrays import as_numpy
from moe_routing.implementations.layouts import RoutingMap
from moe_routing.reference import Routing

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


def unit_rows(ids: Any, library: Any, *, width: int | None = None, first: int = 0) -> Any:
    """Return what experts that take all tokens with their ``ids [..., K]`` answer: ``[..., K, K]``.

    Slot k answers 1 in column k, so that the block's weighted sum over slots is ``[..., K]``, its
    weights in the order of ``ids``. ``library`` is the module of the array: ``torch``,
    ``mlx.core`` or ``jax.numpy``. In float32, so that a block's own cast rounds nothing. For a
    block whose output must have the ``width`` of a token the columns are those of the slots from
    ``first`` on.
    """
    top_k = ids.shape[-1]
    slots = library.arange(top_k)[:, None] - first
    columns = library.arange(top_k if width is None else width)[None]
    unit = library.where(slots == columns, 1.0, 0.0)
    return library.broadcast_to(unit, (*ids.shape, unit.shape[-1]))


def stacked_routes(
    run: Callable[[Callable[[Any], Any]], Any],
    *,
    top_k: int,
    library: Any,
    width: int | None = None,
) -> Routing:
    """Return the routes of a block whose experts take all tokens at once, with their ids.

    ``run(experts)`` has the block call ``experts(ids)`` and returns its output. That is as wide as
    K, unless the block gives it the ``width`` of a token: then it is run for as many slots at a
    time as that has columns.
    """
    heard: dict[str, Any] = {}
    wide = top_k if width is None else width

    def slots_from(first: int) -> Any:
        def experts(ids: Any) -> Any:
            heard["ids"] = ids
            return unit_rows(ids, library, width=wide, first=first)

        return run(experts).reshape(-1, wide)[:, : top_k - first]

    found = [slots_from(first) for first in range(0, top_k, wide)]
    weights = library.concatenate(found, axis=-1)  # in rows: a copy, of one part too
    return Routing(weights=weights, expert_ids=heard["ids"].reshape(weights.shape))


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


@contextmanager
def heard(*functions: Any) -> Iterator[list[Any]]:
    """Collect what each call of some functions of torch returns inside the block."""
    from torch.overrides import TorchFunctionMode

    results: list[Any] = []

    class Hearing(TorchFunctionMode):
        """Listens to the calls."""

        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            found = function(*args, **(kwargs or {}))
            if function in functions:
                results.append(found)
            return found

    with Hearing():
        yield results


@contextmanager
def heard_topk(top_k: int) -> Iterator[list[Any]]:
    """Collect the indices of each ``torch.topk`` of K that is taken inside the block.

    For a block whose experts are probed: a token of NaN has NaN for weights, which no expert's
    answer can be told from.
    """
    import torch

    ids: list[Any] = []
    with heard(torch.topk, torch.Tensor.topk) as found:
        yield ids
    ids.extend(each for _, each in found if each.shape[-1] == top_k)


def torch_routes(
    run: Callable[[Sequence[Expert]], Any], *, num_experts: int, top_k: int
) -> Routing:
    """Return the routes of a torch block as ``probed_routes`` does, its experts heard at topk."""
    import torch

    with heard_topk(top_k) as heard:
        width = run([_expert(-1, 0.0)] * num_experts).shape[-1]
    ids = heard[-1].reshape(-1, top_k)
    dense = [
        run([_expert(number - first, 1.0) for number in range(num_experts)]).reshape(-1, width)
        for first in range(0, num_experts, width)
    ]
    return Routing(weights=torch.concatenate(dense, dim=-1).gather(1, ids), expert_ids=ids)
