"""Small traces, written as engines and trainers write them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

NAMES = {"uint16": "BF16", "float32": "F32", "float64": "F64", "int16": "I16", "int64": "I64"}
"""The names in a safetensors header; 16 bits without a sign are bfloat16's."""

TOKENS, EXPERTS, TOP_K = 40, 16, 4
"""The sizes of a small trace."""

CLAIM = {"score": ["softmax"], "renormalize": [{}], "logits_dtype": ["input"]}
"""The router of a small trace."""


def save_safetensors(path: Path, arrays: dict[str, Array], **names: str) -> Path:
    """Write a safetensors file by hand: bfloat16 as its bits."""
    header: dict[str, Any] = {"__metadata__": {"format": "np"}}
    data = b""
    for key, array in arrays.items():
        held = np.ascontiguousarray(array).tobytes()
        dtype = names.get(key, NAMES[array.dtype.name])
        offsets = [len(data), len(data) + len(held)]
        header[key] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}
        data += held
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def small(
    layers: int = 2, tokens: int = TOKENS, seed: int = 0
) -> tuple[list[Array], list[Array], list[Array]]:
    """Return the logits, ids and weights of an honest trace, of each layer."""
    rng = np.random.default_rng(seed)
    logits = [rng.standard_normal((tokens, EXPERTS)).astype(np.float32) for _ in range(layers)]
    ids = [np.argsort(-each, axis=1, kind="stable")[:, :TOP_K] for each in logits]
    return logits, ids, [weights_at(z, chosen) for z, chosen in zip(logits, ids, strict=True)]


def weights_at(logits: Array, ids: Array) -> Array:
    """Return the renormalised softmax at some experts, in float32."""
    chosen = np.take_along_axis(logits, ids, axis=1)
    shares = np.exp(chosen - chosen.max(axis=1, keepdims=True))
    return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


def keyed(logits: list[Array], ids: list[Array], weights: list[Array]) -> dict[str, Array]:
    """Return the arrays of a trace by key, one for each layer."""
    found: dict[str, Array] = {}
    for name, each in (("router_logits", logits), ("expert_ids", ids), ("weights", weights)):
        found |= {f"{name}.{layer}": array for layer, array in enumerate(each)}
    return found


def save_npz(path: Path, arrays: dict[str, Array], *, compressed: bool = False) -> Path:
    """Write an npz file."""
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def claim_file(folder: Path, **axes: Any) -> Path:
    """Write the router of a small trace as a claim."""
    path = folder / "claim.json"
    path.write_text(json.dumps({**CLAIM, **axes}))
    return path
