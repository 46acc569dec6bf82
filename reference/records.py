"""Records that engines write, read as ``Recorded``: which experts ran, token by token."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.reference.checks import require_count, shown
from moe_routing.reference.formats import Ids
from moe_routing.reference.replay import Recorded


def from_vllm(
    routed_experts: npt.ArrayLike,
    *,
    layer: int | None = 0,
    rows: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
) -> Recorded:
    """Read ``CompletionOutput.routed_experts``: ``[tokens, layers, K]`` of any integer dtype.

    Prompt and completion are in one array, or concatenated by the caller. The last sampled token
    was never fed to the model: it has no row, so a batch that holds it needs ``rows`` with -1
    there (``rows_of``). Errors: ``ValueError``, as ``Recorded``.
    """
    ids = np.asarray(routed_experts)
    if ids.ndim != 3 or ids.dtype.kind not in "iu":
        raise ValueError(
            "Expected routed_experts to be integers of shape [tokens, layers, K] but got shape "
            f"{ids.shape} of dtype {ids.dtype}"
        )
    return Recorded(
        expert_ids=ids.astype(np.int64),
        weights=None if weights is None else np.asarray(weights, np.float32),
        rows=None if rows is None else np.asarray(rows, np.int64),
        layer=layer,
    )


def from_sglang(
    routed_experts: str,
    *,
    num_layers: int,
    top_k: int,
    layer: int | None = 0,
    rows: npt.ArrayLike | None = None,
) -> Recorded:
    """Read ``meta_info["routed_experts"]``: base64 of int32, ``[tokens, num_layers, top_k]``.

    ``num_layers`` counts the layers of the model as sglang's buffer does, dense ones included, and
    ``top_k`` the slots that it keeps, without fused shared experts. As of vLLM, the last sampled
    token has no row. Errors: ``ValueError`` naming the argument.
    """
    for name, number in (("num_layers", num_layers), ("top_k", top_k)):
        require_count(name, number, at_least=1)
    try:
        held = base64.b64decode(routed_experts, validate=True)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected routed_experts to be base64 but got {shown(routed_experts)}"
        ) from error
    whole = 4 * num_layers * top_k
    if len(held) % whole:
        raise ValueError(
            f"Expected routed_experts of whole tokens, {num_layers} layers of {top_k} int32 each, "
            f"but got {len(held)} bytes: {len(held)} % {whole} != 0"
        )
    ids = np.frombuffer(held, np.dtype("<i4")).reshape(-1, num_layers, top_k)
    return from_vllm(ids, layer=layer, rows=rows)


def rows_of(recorded: list[int], lengths: list[int], *, padded_to: int | None = None) -> Ids:
    """Return the ``rows`` of a batch: sequence by sequence, packed, or each padded to a length.

    ``recorded`` counts the rows that each sequence has in the record, in which they follow one
    another, ``lengths`` the tokens that it has in the batch. Tokens beyond what was recorded, such
    as the last one sampled, have none, nor has padding. Errors: ``ValueError``.
    """
    if len(recorded) != len(lengths):
        raise ValueError(
            f"Expected as many lengths as sequences, {len(recorded)}, but got {len(lengths)}"
        )
    parts, start = [], 0
    for held, length in zip(recorded, lengths, strict=True):
        if padded_to is not None and length > padded_to:
            raise ValueError(f"Expected lengths up to padded_to={padded_to} but got {length}")
        rows = np.full(length if padded_to is None else padded_to, -1, np.int64)
        kept = min(held, length)
        rows[:kept] = start + np.arange(kept)
        parts.append(rows)
        start += held
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def from_megatron(layers: list[Any], *, layer: int | None = 0, rows: Any = None) -> Recorded:
    """Read ``RouterReplay.get_recorded_data()``: a tensor ``[tokens, K]`` for each MoE layer."""
    found = [np.asarray(each.cpu() if hasattr(each, "cpu") else each) for each in layers]
    if len({each.shape for each in found}) != 1:
        raise ValueError(
            "Expected an array [tokens, K] for each layer but got shapes "
            f"{[each.shape for each in found]}"
        )
    return from_vllm(np.stack(found, axis=1), layer=layer, rows=rows)
