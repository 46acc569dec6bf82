"""What engines return over HTTP, read as they write it: the routed experts of each response.

sglang's ``/generate`` has ``meta_info.routed_experts``, base64 of int32; vLLM's completions have
``choices[i].routed_experts``, base64 of an array as NumPy saves it. A file is one response, a list
of them, or one a line.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moe_routing.conformance.traces.dtypes import AnyArray
from moe_routing.conformance.traces.errors import TraceError
from moe_routing.conformance.traces.known_router import Known
from moe_routing.conformance.traces.pieces import Files, Held, Piece

KEY = "routed_experts"
"""The key that both engines use."""


def pieces_of_responses(path: Path, known: Known) -> Iterator[Piece]:
    """Yield the routes ``[tokens, layers, K]`` of each response. Errors: ``TraceError``."""
    if path.suffix == ".json":
        for number, found in enumerate(_routes(path, path.read_text("utf-8"), known, "")):
            yield Held(path=path, key=f"{KEY} of response {number}", kind="int64", array=found)
        return
    with path.open("rb") as file:
        while line := file.readline():
            start = file.tell() - len(line)
            if line.strip():
                for place, found in enumerate(_of_line(path, line, start, known)):
                    yield Line(
                        path=path,
                        start=start,
                        length=len(line),
                        place=place,
                        shape=tuple(found.shape),
                        known=known,
                    )


@dataclass(frozen=True, kw_only=True)
class Line:
    """The routes of a response that is a line of a file, decoded anew whenever they are read."""

    path: Path
    start: int
    length: int
    place: int
    shape: tuple[int, ...]
    known: Known
    kind: str = "int64"

    @property
    def key(self) -> str:
        """Its name in messages."""
        return f"{KEY} at byte {self.start}"

    def read(self, files: Files, start: int, stop: int) -> AnyArray:
        """Return the rows from ``start`` to ``stop``."""
        line = files.at(self.path, self.start, self.length)
        return _of_line(self.path, line, self.start, self.known)[self.place][start:stop]


def _of_line(path: Path, line: bytes, start: int, known: Known) -> list[AnyArray]:
    return list(_routes(path, line.decode("utf-8", "replace"), known, f" at byte {start}"))


def _routes(path: Path, text: str, known: Known, where: str) -> Iterator[AnyArray]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise TraceError(f"{path} is no JSON{where}: {error}") from error
    found = [each for one in (data if isinstance(data, list) else [data]) for each in _held(one)]
    if not found:
        raise TraceError(f"{path} has no {KEY}{where}: expected them in meta_info or in choices")
    for held, meta in found:
        yield _decoded(path, held, meta, known, where)


def _held(response: Any) -> Iterator[tuple[Any, dict[str, Any] | None]]:
    """Yield what a response holds of routes; for sglang's with its meta_info."""
    if not isinstance(response, dict):
        return
    meta = response.get("meta_info")
    if isinstance(meta, dict) and meta.get(KEY):
        yield meta[KEY], meta
    parts = response.get("outputs", response.get("choices"))
    for part in parts if isinstance(parts, list) else [response]:
        if isinstance(part, dict) and part.get(KEY):
            yield part[KEY], None


def _decoded(
    path: Path, held: Any, meta: dict[str, Any] | None, known: Known, where: str
) -> AnyArray:
    if isinstance(held, list):
        return _shaped(path, np.asarray(held), where)
    try:
        data = base64.b64decode(held, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise TraceError(f"{path}: {KEY}{where} is no base64: {error}") from error
    if meta is None:
        try:
            return _shaped(path, np.load(io.BytesIO(data), allow_pickle=False), where)
        except (ValueError, EOFError, OSError) as error:
            raise TraceError(f"{path}: {KEY}{where} is no array of NumPy: {error}") from error
    return _of_sglang(path, data, meta, known.top_k, where)


def _of_sglang(path: Path, data: bytes, meta: dict[str, Any], top_k: int, where: str) -> AnyArray:
    """Split int32 into tokens and layers: all tokens but the last one, which was never fed."""
    try:
        tokens = int(meta["prompt_tokens"]) + int(meta["completion_tokens"]) - 1
    except (KeyError, TypeError, ValueError) as error:
        raise TraceError(
            f"{path}: meta_info{where} lacks prompt_tokens and completion_tokens, which say "
            f"how many rows its {KEY} have"
        ) from error
    if tokens < 1 or len(data) % (4 * top_k * tokens):
        raise TraceError(
            f"{path}: {KEY}{where} has {len(data)} bytes, which are no int32 of {tokens} tokens "
            f"in layers of K={top_k}: is it another model's?"
        )
    return np.frombuffer(data, "<i4").reshape(tokens, -1, top_k).astype(np.int64)


def _shaped(path: Path, array: AnyArray, where: str) -> AnyArray:
    if array.ndim != 3 or array.dtype.kind not in "iu":
        raise TraceError(
            f"{path}: {KEY}{where} has shape {list(array.shape)} in {array.dtype}, expected "
            "integers [tokens, layers, K]"
        )
    return array.astype(np.int64)
