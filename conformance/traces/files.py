"""The arrays of a file, by its header alone: safetensors, npz, npy, and engines' responses."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from moe_routing.conformance.traces.dtypes import OF_SAFETENSORS, Order, kind_of_numpy, read_dtype
from moe_routing.conformance.traces.errors import TraceError
from moe_routing.conformance.traces.known_router import Known
from moe_routing.conformance.traces.pieces import Held, Piece, Stored
from moe_routing.conformance.traces.responses import pieces_of_responses

_LARGEST_HEADER = 100 * 2**20  # the bound of safetensors itself
_ZIP_HEADER = 30


def pieces_of(path: Path, known: Known) -> Iterator[Piece]:
    """Yield the arrays of a file. Errors: ``TraceError``, ``OSError``.

    A response of sglang does not say K: the ``known`` router does.
    """
    readers: dict[str, Callable[[Path], Iterator[Piece]]] = {
        ".safetensors": _of_safetensors,
        ".npz": _of_npz,
        ".npy": _of_npy,
        ".json": lambda file: pieces_of_responses(file, known),
        ".jsonl": lambda file: pieces_of_responses(file, known),
    }
    if path.suffix not in readers:
        hint = "; save its tensors with safetensors" if path.suffix in (".pt", ".pth") else ""
        raise TraceError(
            f"Cannot read {path}: a trace is {', '.join(readers)}, or a folder of these{hint}"
        )
    if not path.stat().st_size:
        raise TraceError(f"{path} is empty")
    return readers[path.suffix](path)


_RESPONSES = (".json", ".jsonl")

READ = (".safetensors", ".npz", ".npy", ".json", ".jsonl")
"""The suffixes of the files of a folder that are read."""


def _of_safetensors(path: Path) -> Iterator[Piece]:
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else _LARGEST_HEADER + 1
        if length > _LARGEST_HEADER:
            raise TraceError(f"{path} is no safetensors file: its first 8 bytes are no length")
        header = _header(path, file.read(length), length)
    for key, entry in header.items():
        if key != "__metadata__":
            yield _entry(path, key, entry, 8 + length, size)


def _header(path: Path, text: bytes, length: int) -> dict[str, Any]:
    if len(text) < length:
        raise TraceError(f"{path} is truncated: its header has {length} bytes, it {len(text)}")
    try:
        header = json.loads(text)
    except ValueError as error:
        raise TraceError(f"{path} is no safetensors file: its header is no JSON") from error
    if not isinstance(header, dict):
        raise TraceError(f"{path} is no safetensors file: its header is no JSON object")
    return header


def _entry(path: Path, key: str, entry: Any, data: int, size: int) -> Piece:
    try:
        dtype, shape = entry["dtype"], tuple(int(each) for each in entry["shape"])
        start, stop = (int(each) for each in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise TraceError(f"{path}: the header of {key} is damaged: {error}") from error
    kind = OF_SAFETENSORS.get(dtype, str(dtype))  # one that is not read is refused where it is used
    if data + stop > size:
        raise TraceError(f"{path} is truncated: {key} ends {data + stop - size} bytes beyond it")
    if dtype in OF_SAFETENSORS and stop - start != prod(shape) * read_dtype(kind).itemsize:
        raise TraceError(
            f"{path}: {key} of shape {list(shape)} in {kind} does not have {stop - start} bytes"
        )
    return Stored(path=path, key=key, shape=shape, kind=kind, offset=data + start)


def _of_npy(path: Path) -> Iterator[Piece]:
    with path.open("rb") as file:
        shape, fortran, dtype = _npy_header(file, f"{path}")
        offset = file.tell()
    missing = offset + prod(shape) * dtype.itemsize - path.stat().st_size
    if missing > 0:
        raise TraceError(f"{path} is truncated: it ends {missing} bytes too early")
    yield _of_numpy(path, path.stem, shape, dtype, offset, None, fortran)


def _of_npz(path: Path) -> Iterator[Piece]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            for member in members:
                with archive.open(member) as file:
                    shape, fortran, dtype = _npy_header(file, f"{path}: {member.filename}")
                    header = file.tell()
                plain = member.compress_type == zipfile.ZIP_STORED
                yield _of_numpy(
                    path,
                    member.filename.removesuffix(".npy"),
                    shape,
                    dtype,
                    header + (_data_of(path, member) if plain else 0),
                    None if plain else member.filename,
                    fortran,
                )
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise TraceError(f"{path} is no npz file, or truncated: {error}") from error


def _data_of(path: Path, member: zipfile.ZipInfo) -> int:
    """Return where the data of a member lie: behind a header whose names have lengths there."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        name, extra = struct.unpack("<HH", file.read(_ZIP_HEADER)[26:30])
    return member.header_offset + _ZIP_HEADER + int(name) + int(extra)


def _npy_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read = np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        words = " ".join(str(error).split())[:80]
        raise TraceError(f"{name} is no array of NumPy, or truncated: {words}") from error
    return tuple(shape), bool(fortran), dtype


def _of_numpy(
    path: Path,
    key: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    offset: int,
    member: str | None,
    fortran: bool,
) -> Piece:
    kind = kind_of_numpy(dtype) or str(dtype)
    order: Order = ">" if dtype.byteorder == ">" else "<"
    if fortran and len(shape) > 1 and not dtype.hasobject:
        return _turned(path, key, kind, member)
    return Stored(
        path=path, key=key, shape=shape, kind=kind, offset=offset, order=order, member=member
    )


def _turned(path: Path, key: str, kind: str, member: str | None) -> Piece:
    """Read an array in Fortran's order as a whole: its rows do not lie together."""
    loaded = np.load(path, allow_pickle=False)
    array = loaded if isinstance(loaded, np.ndarray) else loaded[key]
    if kind == "bfloat16":
        raise TraceError(f"{path}: {key} is bfloat16 in Fortran's order: save it in C order")
    return Held(path=path, key=key, kind=kind, array=np.ascontiguousarray(array))


def files_in(given: Path) -> list[Path]:
    """Return the files of a trace: itself, or those in a folder, 2 before 10.

    JSON in a folder is read where it holds nothing else, for much of it is no response.

    Errors: ``TraceError`` where there is none.
    """
    if not given.is_dir():
        if not given.exists():
            raise TraceError(f"{given}: no such file or folder")
        return [given]
    every = sorted((each for each in given.iterdir() if _is_read(each)), key=natural)
    found = [each for each in every if each.suffix not in _RESPONSES] or every
    if not found:
        raise TraceError(f"{given} has no file to read: expected some of {', '.join(READ)}")
    return found


def _is_read(path: Path) -> bool:
    json_beside = path.suffix == ".json" and (
        path.name.endswith(".index.json") or path.name in _OF_MODELS
    )
    return path.suffix in READ and not json_beside and os.access(path, os.R_OK)


_OF_MODELS = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


def natural(path: Path) -> list[tuple[int, str]]:
    """Return what sorts a name by the numbers in it."""
    parts: list[tuple[int, str]] = []
    digits = ""
    for letter in f"{path.name}\0":
        if letter.isdigit():
            digits += letter
            continue
        if digits:
            parts.append((int(digits), ""))
            digits = ""
        parts.append((-1, letter))
    return parts
