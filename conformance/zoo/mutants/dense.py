"""Mutants of dense answers: weights ``[T, E]`` alone, where 0 says who is left out."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.layouts import dense, dense_of
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.implementations import DenseRouting


@mutant(
    "dense-table-not-transposed",
    "M52",
    "answer",
    real="huggingface/transformers#40609",
    needs="2 tokens",
)
def _(w: Work) -> DenseRouting:
    """A table of a row an expert was reshaped to a row a token, and not transposed."""
    table = dense(w).weights
    return dense_of(w, np.ascontiguousarray(table.T).reshape(table.shape))


@mutant("dense-keeps-every-score", "M52", "answer", real="huggingface/transformers#40609")
def _(w: Work) -> DenseRouting:
    """Scores off the route stayed in the table, and were summed with the rest."""
    table = dense(w).weights
    return dense_of(w, np.where(table == 0, w.scores.astype(np.float32), table))


@mutant("dense-weights-by-place", "M52", "answer", real="vcruz305/vllm-exl3#2")
def _(w: Work) -> DenseRouting:
    """Ids were sorted for the scatter, and the weights were not: each went to a neighbour."""
    return dense_of(w, _scattered(w, np.sort(w.expert_ids, axis=1)))


@mutant("dense-last-column-left-out", "M38", "answer", real="HKUSTDial/omni-moe#21")
def _(w: Work) -> DenseRouting:
    """A bound that was off by one: the weight of the last expert was not written."""
    table = np.array(dense(w).weights)
    table[:, -1] = 0
    return dense_of(w, table)


@mutant("dense-small-weights-dropped", "M13", "answer", real="huggingface/transformers#40609")
def _(w: Work) -> DenseRouting:
    """Weights below a thousandth were taken for rounding, and for experts that are left out."""
    table = dense(w).weights
    return dense_of(w, np.where(np.abs(table) < 1e-3, np.float32(0), table))


@mutant("dense-table-not-cleared", "M52", "answer", real="flagos-ai/FlagGems#5123")
def _(w: Work) -> DenseRouting:
    """One table served every call of a size: what the last one had written was not cleared."""
    table = dense(w).weights
    before = w.memory.get(table.shape)
    w.memory[table.shape] = table
    return dense_of(w, table if before is None else np.where(table == 0, before, table))


def _scattered(w: Work, ids: Array) -> Array:
    """Return weights in a table, slot k in the column ``ids[:, k]``."""
    table = np.zeros((w.num_tokens, w.config.num_experts), np.float32)
    np.put_along_axis(table, ids, w.weights, axis=1)
    return table
