"""Forms of a mutant: the same bug, where what a right router leaves open is done in another way.

What a bug makes equal, such as biases once they are rounded, is a tie, and what it makes negative
is summed with its sign or without. No right answer shows how; backends with the same bug differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from moe_routing.conformance.zoo.residents import HONEST, Mutant, Staged
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.router import StagedRouter
from moe_routing.conformance.zoo.router.stages import best_of, norm, table_or
from moe_routing.conformance.zoo.router.work import Stage, Work
from moe_routing.reference.formats import Bools

_TO_THE_HIGHEST = HONEST["ties-to-the-highest"].stages


def forms(mutant: Mutant, preferred: Bools | None) -> Iterator[Staged]:
    """Yield ``mutant``, then the same bug in a router that breaks ties and sums norms otherwise.

    Ties go to the highest expert, or to those marked ``preferred [T, E]``, unless the bug is in
    how experts are selected; norms are summed with their signs, unless it is in the norm.
    """
    if mutant.makes is not StagedRouter:
        yield mutant.adapter()
        return
    ties: list[dict[str, Stage]] = [{}]
    if "expert_ids" not in mutant.stages:
        ties += [] if preferred is None else [_to(preferred)]
        ties += [dict(_TO_THE_HIGHEST)]
    norms: list[dict[str, Stage]] = [{}] if "norm" in mutant.stages else [{}, {"norm": _signed}]
    for summed, tied in product(norms, ties):
        yield StagedRouter(mutant.name, {**summed, **tied, **mutant.stages}, mutant.claims)


def _signed(w: Work) -> Array:
    """Return the divisor of renormalisation, of weights that keep their signs in a plain sum."""
    if w.rule.order != 1.0:
        return norm(w)
    total: Array = w.gathered.sum(axis=1, keepdims=True) + np.float32(w.rule.eps)
    return np.maximum(total, np.float32(w.rule.floor)) if w.rule.floor else total


def _to(preferred: Bools) -> dict[str, Stage]:
    """Return the stages that select, with ties to the ``preferred``."""

    def expert_ids(w: Work) -> Array:
        fitting = _fitting(preferred, w)
        return table_or(w, lambda: best_of(w, lambda x, k: _best(x, fitting.reshape(x.shape), k)))

    def kept_groups(w: Work) -> Array:
        grid = _fitting(preferred, w).reshape(w.num_tokens, w.groups.count, -1)
        return _best(w.group_scores, np.any(grid, axis=2), w.groups.kept)

    return {"expert_ids": expert_ids, "kept_groups": kept_groups}


def _fitting(preferred: Bools, w: Work) -> Bools:
    """Return ``preferred``, or that none is, in a call of another size that a clause derives."""
    shape = w.num_tokens, w.config.num_experts
    return preferred if preferred.shape == shape else np.zeros(shape, dtype=bool)


def _best(values: Array, preferred: Bools, count: int) -> Array:
    """Return the columns of the ``count`` greatest of each row, best first."""
    columns = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    keys = (columns, ~preferred, -np.fmax(values, -np.inf))
    order: Array = np.lexsort(keys, axis=1)[:, :count]
    return order
