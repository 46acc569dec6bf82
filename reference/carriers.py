"""Given logits as hidden states times a gate, for backends that multiply the two."""

from __future__ import annotations

from typing import Any

import numpy as np

from moe_routing.reference.arrays import AnyArray

MOST = 2**24
"""The most numbers in hidden states that pick rows of a gate: 64 MiB."""


def carriers(logits: AnyArray, *, on_gate: bool) -> dict[str, Any]:
    """Return ``hidden``, ``gate_weight`` and ``gate_bias`` whose logits are ``logits [T, E]``.

    The numbers are in the hidden states, beside an identity gate, or ``on_gate``, beside hidden
    states that are the identity. Errors: ``ValueError`` for a logit that neither can carry.
    """
    lost: AnyArray = np.asarray(np.isneginf(logits).all(axis=0) & (len(logits) > 0))
    carried = np.where(lost, np.float32(0.0), logits)
    _check_reachable(logits, carried)
    made = (
        _on_gate(carried) if on_gate else {"hidden": carried, "gate_weight": _eye(logits.shape[1])}
    )
    bias = np.where(lost, np.float32(-np.inf), np.float32(0.0)) if lost.any() else None
    return {**made, "gate_bias": bias}


def _on_hidden(carried: AnyArray) -> dict[str, Any]:
    """Return hidden states ``[T, E]`` and the identity."""
    return {"hidden": carried, "gate_weight": _eye(carried.shape[1])}


def _on_gate(carried: AnyArray) -> dict[str, Any]:
    """Return hidden states ``[T, H]`` that each pick a column of a gate ``[E, H]``.

    H is the number of different rows. A row of NaN is NaN in its state. Errors: ``ValueError``
    for so many rows that nothing could hold the states.
    """
    first, column = _different(carried)
    if len(column) * len(first) > MOST:
        raise ValueError(
            f"Cannot have {len(first)} different rows of logits, {len(column)} in all, in float32 "
            f"beside hidden states of 16 bits: these would be T * rows > {MOST} numbers"
        )
    hidden, gate = _eye(max(1, len(first)))[column], np.ascontiguousarray(carried[first].T)
    undefined = np.isnan(gate).all(axis=0) & (len(gate) > 0)
    hidden[:, undefined] = np.where(hidden[:, undefined] == 1.0, np.float32(np.nan), 0.0)
    gate[:, undefined] = 0.0
    return {"hidden": hidden, "gate_weight": gate if len(first) else _zeros(len(gate))}


def _different(rows: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Return where each different row comes first, and for every row which of those it is."""
    if rows.shape[1] == 0:
        return np.arange(min(1, len(rows))), np.zeros(len(rows), dtype=np.int64)
    whole = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.shape[1] * rows.itemsize)))
    _, first, which = np.unique(whole.ravel(), return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[which]


def _eye(size: int) -> AnyArray:
    return np.eye(size, dtype=np.float32)


def _zeros(experts: int) -> AnyArray:
    return np.zeros((experts, 1), np.float32)


def _check_reachable(logits: AnyArray, hidden: AnyArray) -> None:
    reachable = np.isfinite(hidden) | np.isnan(hidden).all(axis=1, keepdims=True)
    if not reachable.all():
        t, e = np.argwhere(~reachable)[0]
        raise ValueError(
            f"Cannot have logits[{t}, {e}]={logits[t, e]}: a gate carries finite "
            "logits, experts that are -inf for every token, and rows that are all NaN"
        )
