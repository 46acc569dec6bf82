"""Recorded arrays that lie in files, read by rows: nothing is held that is not read."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from moe_routing.conformance.traces.dtypes import AnyArray, Order, numbers, read_dtype
from moe_routing.conformance.traces.errors import TraceError


class Piece(Protocol):
    """One array of a file; ``read`` returns some of its rows, along the first axis.

    Bfloat16 is read as float32. ``path`` and ``key`` are its names in messages.
    """

    @property
    def path(self) -> Path:
        """The file that it lies in."""
        ...

    @property
    def key(self) -> str:
        """Its name in the file."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        ...

    @property
    def kind(self) -> str:
        """The name of its dtype."""
        ...

    def read(self, files: Files, start: int, stop: int) -> AnyArray:
        """Return the rows from ``start`` to ``stop``. Errors: ``TraceError``, ``OSError``."""
        ...


@dataclass
class Member:
    """A compressed member of a zip file that is being read, and the stretch that was read last."""

    file: IO[bytes]
    offset: int = 0
    held: bytes = b""

    @property
    def place(self) -> int:
        """Where it was read up to."""
        return self.offset + len(self.held)

    def read(self, offset: int, count: int) -> bytes:
        """Return bytes from ``offset`` on, which is not before what was read last."""
        while self.place < offset:
            self.offset, self.held = self.place, self.file.read(min(offset - self.place, 2**20))
            if not self.held:
                return b""
        before = self.held[offset - self.offset :][:count]
        found = before + self.file.read(count - len(before))
        if len(before) < count:
            self.offset, self.held = offset, found
        return found


@dataclass
class Files:
    """The files that one process has open, and what it read last of arrays that hold all layers."""

    plain: dict[Path, IO[bytes]] = field(default_factory=dict)
    members: dict[tuple[Path, str], Member] = field(default_factory=dict)
    zips: dict[Path, zipfile.ZipFile] = field(default_factory=dict)
    latest: dict[tuple[int, int, int], AnyArray] = field(default_factory=dict)

    def recent(self, pieces: Sequence[Piece], start: int, stop: int) -> AnyArray:
        """Return rows of pieces that hold all layers: each layer reads the same."""
        key = id(pieces[0]), start, stop
        if key not in self.latest:
            if len(self.latest) >= _LATEST:
                del self.latest[next(iter(self.latest))]
            self.latest[key] = rows_of_pieces(pieces, self, start, stop)
        return self.latest[key]

    def at(self, path: Path, offset: int, count: int) -> bytes:
        """Return ``count`` bytes of a file. Errors: ``TraceError`` where it ends before."""
        if path not in self.plain:
            self.plain[path] = path.open("rb")
        file = self.plain[path]
        file.seek(offset)
        found = file.read(count)
        if len(found) < count:
            raise TraceError(f"{path} is truncated: it ends {count - len(found)} bytes too early")
        return found

    def of_member(self, path: Path, name: str, offset: int, count: int) -> bytes:
        """Return bytes of a compressed member of a zip file: fast where reads go forward."""
        member = self.members.get((path, name))
        try:
            if member is None or offset < member.offset:
                member = self.members[path, name] = Member(self._opened(path).open(name))
            found = member.read(offset, count)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise TraceError(f"{path} is damaged at {name}: {error}") from error
        if len(found) < count:
            raise TraceError(f"{path} is truncated: {name} ends too early")
        return found

    def _opened(self, path: Path) -> zipfile.ZipFile:
        if path not in self.zips:
            self.zips[path] = zipfile.ZipFile(path)
        return self.zips[path]

    def close(self) -> None:
        """Close what is open."""
        for each in (*self.plain.values(), *(each.file for each in self.members.values())):
            each.close()
        for archive in self.zips.values():
            archive.close()


_LATEST = 20
"""How many stretches of arrays that hold all layers are kept: all windows of a look at a trace."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An array whose bytes lie in a file one after the other, or in a ``member`` of a zip file."""

    path: Path
    key: str
    shape: tuple[int, ...]
    kind: str
    offset: int
    order: Order = "<"
    member: str | None = None

    @property
    def row_bytes(self) -> int:
        """The bytes of one row."""
        return prod(self.shape[1:]) * read_dtype(self.kind).itemsize

    def read(self, files: Files, start: int, stop: int) -> AnyArray:
        """Return the rows from ``start`` to ``stop``."""
        offset, count = self.offset + start * self.row_bytes, (stop - start) * self.row_bytes
        if self.member is None:
            held = files.at(self.path, offset, count)
        else:
            held = files.of_member(self.path, self.member, offset, count)
        found = np.frombuffer(held, read_dtype(self.kind, self.order))
        return numbers(found, self.kind).reshape(stop - start, *self.shape[1:])


@dataclass(frozen=True, kw_only=True, eq=False)
class Held:
    """An array that is in memory: of an engine's response, or in Fortran's order."""

    path: Path
    key: str
    kind: str
    array: AnyArray

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array."""
        return tuple(self.array.shape)

    def read(self, files: Files, start: int, stop: int) -> AnyArray:
        """Return the rows from ``start`` to ``stop``."""
        return self.array[start:stop]


def named(piece: Piece) -> str:
    """Return the name of an array in messages."""
    return f"{piece.path}: {piece.key}"


def rows_of_pieces(pieces: Sequence[Piece], files: Files, start: int, stop: int) -> AnyArray:
    """Return rows of arrays that follow one another, each with rows of its own."""
    found: list[Any] = []
    first = 0
    for piece in pieces:
        last = first + piece.shape[0]
        if start < last and stop > first:
            found.append(piece.read(files, max(start - first, 0), min(stop, last) - first))
        first = last
    if not found:
        return pieces[0].read(files, 0, 0)
    return found[0] if len(found) == 1 else np.concatenate(found)
