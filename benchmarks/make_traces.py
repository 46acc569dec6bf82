"""Makes the traces of two engines, of which the second differs where it is said to.

    python benchmarks/make_traces.py FOLDER [--layers 48] [--tokens 131072] ...

writes ``engine.safetensors`` (honest) and ``trainer.safetensors``: the same routes, but for routes
swapped at near ties, wrong ones, and one layer whose experts and weights are a token late; and
``planted.json``, which says where. Both compute their logits in float32, record them in bfloat16,
and route by softmax over the top K, renormalised. What rounding swaps is read off the record: an
expert that was chosen and one that was not, whose recorded logits are equal.
"""

from __future__ import annotations

import argparse
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_DTYPES = {"logits": ("BF16", 2), "weights": ("F32", 4), "expert_ids": ("I16", 2)}
_STRETCH = 2**13


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of a trace, and how much of it is planted."""

    layers: int = 48
    tokens: int = 131_072
    experts: int = 128
    top_k: int = 8
    near: int = 1000
    wrong: int = 100
    late: int | None = None
    seed: int = 0

    @property
    def shifted(self) -> int:
        """The layer that is a token late."""
        return self.layers // 2 if self.late is None else self.late


@dataclass
class Planted:
    """What was planted, as pairs of layer and token."""

    near: list[tuple[int, int]] = field(default_factory=list)
    wrong: list[tuple[int, int]] = field(default_factory=list)


class Writer:
    """Writes a safetensors file whose sizes are known before its numbers are."""

    def __init__(self, path: Path, sizes: Sizes) -> None:
        header: dict[str, Any] = {}
        self.offsets: dict[str, int] = {}
        widths = {"logits": sizes.experts, "weights": sizes.top_k, "expert_ids": sizes.top_k}
        at = 0
        for layer in range(sizes.layers):
            for part, (dtype, size) in _DTYPES.items():
                count, key = sizes.tokens * widths[part] * size, key_of(part, layer)
                shape = [sizes.tokens, widths[part]]
                header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + count]}
                self.offsets[key] = at
                at += count
        text = json.dumps(header).encode()
        self.file: IO[bytes] = path.open("wb")
        self.file.write(struct.pack("<Q", len(text)) + text)
        self.start = 8 + len(text)
        self.file.truncate(self.start + at)

    def write(self, part: str, layer: int, first: int, values: Array) -> None:
        """Write the rows of a part from row ``first`` on."""
        row = values.shape[1] * values.dtype.itemsize
        self.file.seek(self.start + self.offsets[key_of(part, layer)] + first * row)
        self.file.write(np.ascontiguousarray(values).tobytes())


def key_of(part: str, layer: int) -> str:
    """Return the key of a part of a layer."""
    return f"{'router_logits' if part == 'logits' else part}.{layer}"


def bfloat16_bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Round float32 to bfloat16, ties to even, and return its bits."""
    bits = values.view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(np.uint16)


def stretches(sizes: Sizes) -> Iterator[tuple[int, int]]:
    """Yield the stretches of tokens that are made at once."""
    for first in range(0, sizes.tokens, _STRETCH):
        yield first, min(first + _STRETCH, sizes.tokens)


def weights_at(logits: npt.NDArray[np.float32], ids: Array) -> npt.NDArray[np.float32]:
    """Return the renormalised softmax at some experts, in float32."""
    chosen = np.take_along_axis(logits, ids, axis=1)
    shares = np.exp(chosen - chosen.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def swap_near(
    ids: Array, order: Array, bits: Array, quota: int, rng: np.random.Generator, used: set[int]
) -> list[int]:
    """Swap the last that was chosen for the first that was not, where their records are equal."""
    rows = np.arange(len(ids))
    k = ids.shape[1]
    tied = bits[rows, order[:, k - 1]] == bits[rows, order[:, k]]
    found = [int(t) for t in rng.permutation(np.flatnonzero(tied)) if int(t) not in used][:quota]
    ids[found, k - 1] = order[found, k]
    return found


def make(folder: Path, sizes: Sizes) -> Planted:
    """Write both traces, and return what was planted in the second."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, planted = np.random.default_rng(sizes.seed), Planted()
    engine = Writer(folder / "engine.safetensors", sizes)
    trainer = Writer(folder / "trainer.safetensors", sizes)
    parts = [(layer, *each) for layer in range(sizes.layers) for each in stretches(sizes)]
    clean = [each for each in parts if each[0] != sizes.shifted]
    shares = {each: _share(place, len(clean), sizes) for place, each in enumerate(clean)}
    late: tuple[Array, Array] | None = None
    for layer, first, last in parts:
        logits = rng.standard_normal((last - first, sizes.experts), dtype=np.float32) * 2
        order = np.argsort(-logits, axis=1, kind="stable")[:, : sizes.top_k + 2]
        bits = bfloat16_bits(logits)
        ids = order[:, : sizes.top_k].copy()
        weights = weights_at(logits, ids)
        _write(engine, layer, first, bits, ids, weights)
        if layer == sizes.shifted:
            before = late or (ids[:1], weights[:1])
            late = ids[-1:], weights[-1:]
            ids, weights = (
                np.concatenate([one, each[:-1]])
                for one, each in zip(before, (ids, weights), strict=True)
            )
        else:
            near, wrong = shares[layer, first, last]
            bad = rng.permutation(len(ids))[:wrong]
            ids[bad, -1] = np.argmin(logits[bad], axis=1)
            swapped = swap_near(ids, order, bits, near, rng, set(bad.tolist()))
            if len(swapped) < near:
                raise SystemExit(f"too few near ties: {len(swapped)} of {near}; take more tokens")
            planted.wrong += [(layer, first + int(t)) for t in sorted(bad)]
            planted.near += [(layer, first + t) for t in sorted(swapped)]
            weights = weights_at(logits, ids)
        _write(trainer, layer, first, bits, ids, weights)
    for each in (engine, trainer):
        each.file.close()
    text = {"shifted": sizes.shifted, "near": planted.near, "wrong": planted.wrong}
    (folder / "planted.json").write_text(json.dumps(text))
    return planted


def _share(place: int, count: int, sizes: Sizes) -> tuple[int, int]:
    """Return how many near ties and wrong routes the ``place``-th of ``count`` parts has."""

    def of(total: int) -> int:
        return (place + 1) * total // count - place * total // count

    return of(sizes.near), of(sizes.wrong)


def _write(writer: Writer, layer: int, first: int, bits: Array, ids: Array, weights: Array) -> None:
    writer.write("logits", layer, first, bits)
    writer.write("expert_ids", layer, first, ids.astype("<i2"))
    writer.write("weights", layer, first, weights)


def main() -> None:
    """Make the traces in the folder that is named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    for name in ("layers", "tokens", "experts", "top_k", "near", "wrong", "late", "seed"):
        default = getattr(Sizes(), name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    given = vars(parser.parse_args())
    made = make(given.pop("folder"), Sizes(**given))
    print(f"{len(made.near)} near ties swapped, {len(made.wrong)} wrong routes")


if __name__ == "__main__":
    main()
