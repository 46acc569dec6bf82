"""A trace: what was recorded of each layer, by the headers of its files alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np

from moe_routing.conformance.traces.dtypes import OF_SAFETENSORS, AnyArray, is_float, read_dtype
from moe_routing.conformance.traces.errors import TraceError
from moe_routing.conformance.traces.files import files_in, pieces_of
from moe_routing.conformance.traces.known_router import Known
from moe_routing.conformance.traces.names import OF_TOKENS, TOKENS_FIRST, Meaning, meaning
from moe_routing.conformance.traces.pieces import (
    Files,
    Held,
    Piece,
    Stored,
    named,
    rows_of_pieces,
)

_DIMENSIONS = {"gate_weight": 2}  # of a router's own arrays; the others have one


@dataclass(frozen=True, kw_only=True, eq=False)
class Field:
    """One part of one layer, ``[tokens, width]``, in pieces that follow one another.

    ``column`` is the layer's place in pieces that are ``[tokens, layers, width]``.
    """

    pieces: tuple[Piece, ...]
    column: int | None = None

    @property
    def tokens(self) -> int:
        """The rows of all pieces."""
        return sum(each.shape[0] for each in self.pieces)

    @property
    def width(self) -> int:
        """The numbers in a row."""
        return self.pieces[0].shape[-1]

    @property
    def kind(self) -> str:
        """The dtype."""
        return self.pieces[0].kind

    @property
    def name(self) -> str:
        """The name in messages."""
        return named(self.pieces[0])

    def read(self, files: Files, start: int, stop: int) -> AnyArray:
        """Return the rows from ``start`` to ``stop``, ``[n, width]``."""
        if self.column is None:
            return rows_of_pieces(self.pieces, files, start, stop)
        return files.recent(self.pieces, start, stop)[:, self.column]


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """What was recorded of one layer: fields by part, and the arrays of its router."""

    number: int
    fields: dict[str, Field]
    own: dict[str, Piece]


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """The layers of a trace; ``unread`` are keys that mean nothing here."""

    name: str
    layers: tuple[Layer, ...]
    tokens: int
    unread: tuple[str, ...] = ()

    def part(self, part: str) -> Field | None:
        """Return a part of the first layer that has it."""
        return next((x.fields[part] for x in self.layers if part in x.fields), None)

    def without(self, numbers: Iterable[int]) -> Trace:
        """Return the trace without some layers."""
        left = set(numbers)
        return replace(self, layers=tuple(x for x in self.layers if x.number not in left))


def open_trace(given: Sequence[Path], known: Known) -> Trace:
    """Read the headers of a trace's files. Errors: ``TraceError``, ``OSError``."""
    fields: dict[tuple[int, str], list[Piece]] = {}
    columns: dict[tuple[int, str], int] = {}
    own: dict[tuple[int | None, str], Piece] = {}
    unread: list[str] = []
    name = " ".join(str(each) for each in given)
    for path in (each for one in given for each in files_in(one)):
        for piece in pieces_of(path, known):
            found = meaning(piece.key)
            if found is None:
                unread.append(piece.key)
            elif found.part in OF_TOKENS:
                _check_kind(piece, found)
                for layer, part, column in _layers_of(piece, found):
                    fields.setdefault((layer, found.part), []).append(part)
                    if column is not None:
                        columns[layer, found.part] = column
            else:
                _check_kind(piece, found)
                for one, part in _own_of(piece, found):
                    own.setdefault((one, found.part), part)
    return _checked(name, fields, columns, own, unread)


def _checked(
    name: str,
    fields: dict[tuple[int, str], list[Piece]],
    columns: dict[tuple[int, str], int],
    own: dict[tuple[int | None, str], Piece],
    unread: list[str],
) -> Trace:
    numbers = sorted({layer for layer, part in fields if part in ("logits", "expert_ids")})
    if not numbers and not any(part == "hidden" for _, part in fields):
        raise TraceError(_nothing(name, [*unread, *(part for _, part in fields)]))
    numbers = numbers or sorted({layer for layer, _ in fields})
    layers = []
    for number in numbers:
        of_layer = {
            part: Field(pieces=tuple(pieces), column=columns.get((number, part)))
            for (layer, part), pieces in fields.items()
            if layer == number
        }
        router = {part: piece for (layer, part), piece in own.items() if layer is None}
        router |= {part: piece for (layer, part), piece in own.items() if layer == number}
        layers.append(Layer(number=number, fields=of_layer, own=router))
    tokens = _tokens(layers)
    return Trace(name=name, layers=tuple(layers), tokens=tokens, unread=tuple(unread))


def _nothing(name: str, keys: list[str]) -> str:
    some = ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
    return (
        f"{name} has no layers: expected arrays such as router_logits.0 and expert_ids.0, "
        f"or routed_experts, but found {some or 'no array'}"
    )


def _tokens(layers: Sequence[Layer]) -> int:
    """Return how many tokens every field has. Errors: ``TraceError`` where they differ."""
    every = [(layer, field) for layer in layers for field in layer.fields.values()]
    first = every[0][1]
    for _, field in every:
        if field.tokens != first.tokens:
            raise TraceError(
                f"Mixed lengths: {field.name} has {field.tokens} tokens and {first.name} "
                f"{first.tokens}: all arrays of a trace are about the same tokens"
            )
        if field.width != layers_width(field, every):
            raise TraceError(
                f"{field.name} has rows of {field.width} but other layers of "
                f"{layers_width(field, every)}: a trace is of one kind of router"
            )
    if not first.tokens:
        raise TraceError(f"{first.name} has no tokens: nothing was recorded")
    return first.tokens


def layers_width(field: Field, every: Sequence[tuple[Layer, Field]]) -> int:
    """Return the width that the first layer has in the part that a field is."""
    part = next(p for layer, _ in every for p, f in layer.fields.items() if f is field)
    return next(layer.fields[part].width for layer, _ in every if part in layer.fields)


def _check_kind(piece: Piece, found: Meaning) -> None:
    integers = found.part == "expert_ids"
    if piece.kind not in OF_SAFETENSORS.values():
        raise TraceError(
            f"{named(piece)} has the unknown dtype {piece.kind}: expected one of "
            f"{', '.join(OF_SAFETENSORS.values())}"
        )
    if integers == is_float(piece.kind):
        wanted = "integers" if integers else "floating-point numbers"
        raise TraceError(f"{named(piece)} is {piece.kind}, but {found.name} are {wanted}")


def _layers_of(piece: Piece, found: Meaning) -> list[tuple[int, Piece, int | None]]:
    """Return the layers that an array is about, what it has of each, and its column there."""
    shape = piece.shape
    if found.layer is not None or len(shape) < 3:
        if not 1 <= len(shape) <= 3:
            raise TraceError(f"{named(piece)} has shape {list(shape)}, expected [tokens, width]")
        flat = (shape[0], 1) if len(shape) == 1 else (prod(shape[:-1]), shape[-1])
        return [(found.layer or 0, _part_of(piece, 0, flat), None)]
    if len(shape) > 4:
        raise TraceError(f"{named(piece)} has shape {list(shape)}: more than four axes")
    if found.name in TOKENS_FIRST:
        whole = _part_of(piece, 0, (prod(shape[:-2]), *shape[-2:]))
        return [(layer, whole, layer) for layer in range(shape[-2])]
    flat = (prod(shape[1:-1]), shape[-1])
    return [(layer, _part_of(piece, layer, flat), None) for layer in range(shape[0])]


def _own_of(piece: Piece, found: Meaning) -> list[tuple[int | None, Piece]]:
    """Return the layers whose router has an array; None: all layers."""
    dimensions = _DIMENSIONS.get(found.part, 1)
    if len(piece.shape) == dimensions + 1 and found.layer is None:
        shape = piece.shape[1:]
        return [(layer, _part_of(piece, layer, shape)) for layer in range(piece.shape[0])]
    if len(piece.shape) != dimensions:
        wanted = "[E, H]" if dimensions == 2 else "one axis"
        raise TraceError(f"{named(piece)} has shape {list(piece.shape)}, expected {wanted}")
    return [(found.layer, piece)]


def _part_of(piece: Piece, place: int, shape: tuple[int, ...]) -> Piece:
    """Return a part of an array that lies in one stretch: the ``place``-th of that shape."""
    if isinstance(piece, Stored):
        size = prod(shape) * read_dtype(piece.kind).itemsize
        return replace(piece, shape=shape, offset=piece.offset + place * size)
    if isinstance(piece, Held):
        flat = piece.array.reshape(-1, *shape)
        return replace(piece, array=flat[place])
    return piece  # of a line, which is [tokens, layers, K] already


def read_own(piece: Piece, files: Files) -> AnyArray:
    """Return a router's own array as a whole, in float32. Errors: ``TraceError``."""
    found = piece.read(files, 0, piece.shape[0])
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(found, dtype=np.float32)
