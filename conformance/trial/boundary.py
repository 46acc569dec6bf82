"""The boundary: a backend's native answer, described as it came, then converted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.judge import Answer
from moe_routing.conformance.judge.hidden import HIDDEN, weights_of
from moe_routing.implementations import DenseRouting, FlatRouting, RoutingMap, as_numpy
from moe_routing.reference import RouterConfig, Routing
from moe_routing.reference.checks import counted
from moe_routing.reference.formats import Numbers

_LAYOUTS = (Routing, FlatRouting, RoutingMap, DenseRouting)
_LAYOUT_NAMES: dict[type, str] = {each: each.__name__ for each in _LAYOUTS}


class Malformed(Exception):
    """The answer does not have the form of its layout; the message says what differs.

    ``case`` is that of the call, where it is known.
    """

    case: AnyCase | None = None


@dataclass(frozen=True, kw_only=True)
class ArrayRecord:
    """How an array came: its library's dtype, shape, element strides, device, gradient."""

    dtype: str
    shape: tuple[int, ...]
    contiguous: bool
    device: str
    requires_grad: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Received:
    """An answer as it came and as converted.

    ``layout`` is the name of one of the layouts; ``records`` describes each
    native array by field name; ``arrays`` holds them as NumPy arrays of their own dtype
    (bfloat16 as float32); ``answer`` is the ``[T, K]`` form that the judge reads, in rows,
    so that sums over them do not depend on how they came. ``shared`` are the weights and the ids
    of the shared slots, ``[T, S]``, which the judge does not read.
    """

    layout: str
    records: dict[str, ArrayRecord]
    arrays: dict[str, npt.NDArray[Any]]
    answer: Answer
    shared: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None


def receive(raw: object, config: RouterConfig, num_tokens: int, *, hides: bool = False) -> Received:
    """Describe and convert a native answer. Errors: ``Malformed``, in one line.

    With ``hides`` a dense answer may have members that do not show, whose ids are then ``HIDDEN``.
    """
    layout = _LAYOUT_NAMES.get(type(raw))
    if layout is None:
        raise Malformed(
            f"route returned {_kind(raw)}, not Routing, FlatRouting, RoutingMap or DenseRouting"
        )
    native = {
        name: value
        for name, value in vars(raw).items()
        if value is not None and name not in ("num_tokens", "kernel")
    }
    records = {name: record(name, value) for name, value in native.items()}
    arrays = {name: to_numpy(name, value) for name, value in native.items()}
    convert = _CONVERT[layout]
    if _slots(config) > config.top_k and layout in ("RoutingMap", "DenseRouting"):
        raise Malformed(f"a {layout} has no place for shared slots: return Routing or FlatRouting")
    weights, ids, source = convert(arrays, config, num_tokens, raw)
    if layout == "DenseRouting" and not hides and (ids == HIDDEN).any():
        raise Malformed(
            "a DenseRouting hides a selected expert whose weight is 0, which only route may do: "
            "return Routing or RoutingMap here"
        )
    logits = arrays.get("logits")
    if logits is not None:
        _require("logits", logits, (num_tokens, config.num_experts), "f")
    routed = slice(config.top_k)
    answer = Answer(
        weights=weights[:, routed].astype(np.float64, order="C"),
        expert_ids=ids[:, routed].astype(np.int64, order="C"),
        logits=None if logits is None else logits.astype(np.float64, order="C"),
        weights_dtype=records[source].dtype,
        logits_dtype=records["logits"].dtype if logits is not None else "float64",
        device=records[source].device,
    )
    behind = slice(config.top_k, None)
    shared = (weights[:, behind], ids[:, behind]) if _slots(config) > config.top_k else None
    return Received(layout=layout, records=records, arrays=arrays, answer=answer, shared=shared)


def _slots(config: RouterConfig) -> int:
    """Return how many slots a token has: K, and those of shared experts."""
    shared = getattr(config, "shared_slots", None)
    return config.top_k + (0 if shared is None else shared.count)


def record(name: str, value: Any) -> ArrayRecord:
    """Describe a native array of NumPy, torch or any library with dtype and shape."""
    if type(value) is np.ndarray:
        return _numpy_record(value.dtype, value.shape, value.flags.c_contiguous)
    if not hasattr(value, "dtype") or not isinstance(getattr(value, "shape", None), Iterable):
        raise Malformed(f"{name} is {_kind(value)}, but should be an array")
    try:
        contiguous = getattr(value, "is_contiguous", None)
        flags = getattr(value, "flags", None)
        return ArrayRecord(
            dtype=str(value.dtype).rpartition(".")[2],
            shape=tuple(value.shape),
            contiguous=bool(contiguous())
            if callable(contiguous)
            else bool(getattr(flags, "c_contiguous", True)),
            device=str(getattr(value, "device", "cpu")),
            requires_grad=bool(getattr(value, "requires_grad", False)),
        )
    except Exception as error:  # a foreign library may raise anything here
        raise _unreadable(name, error) from error


@lru_cache(maxsize=1024)
def _numpy_record(dtype: np.dtype[Any], shape: tuple[int, ...], contiguous: bool) -> ArrayRecord:
    """Describe an array of NumPy, whatever its byte order; many answers are described alike."""
    return ArrayRecord(
        dtype=dtype.name, shape=shape, contiguous=contiguous, device="cpu", requires_grad=False
    )


def as_numbers(array: npt.NDArray[Any]) -> Numbers:
    """Return floating point in rows, in float64 where float32 may not hold it."""
    if array.dtype.itemsize > np.dtype(np.float32).itemsize:
        return array.astype(np.float64, order="C", copy=False)
    return array.astype(np.float32, order="C", copy=False)


def to_numpy(name: str, value: Any, *, copy: bool = True) -> npt.NDArray[Any]:
    """Copy a native array to NumPy: off its graph, off its device, bfloat16 as float32.

    Without ``copy`` the memory may be the native array's. Errors: ``Malformed``.
    """
    try:
        return as_numpy(value, copy=copy)
    except Exception as error:  # a foreign library may raise anything here
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> Malformed:
    return Malformed(f"{name} cannot be read as an array: {' '.join(str(error).split())}")


def _routing(
    arrays: dict[str, npt.NDArray[Any]], config: RouterConfig, num_tokens: int, raw: Any
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], str]:
    _present(arrays, "weights", "expert_ids")
    shape = (num_tokens, _slots(config))
    _require("weights", arrays["weights"], shape, "f")
    _require("expert_ids", arrays["expert_ids"], shape, "iu")
    return arrays["weights"], arrays["expert_ids"], "weights"


def _flat(
    arrays: dict[str, npt.NDArray[Any]], config: RouterConfig, num_tokens: int, raw: Any
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], str]:
    _present(arrays, "scores", "token_indices", "expert_indices")
    slots = _slots(config)
    shape = (num_tokens * slots,)
    _require("scores", arrays["scores"], shape, "f")
    for name in ("token_indices", "expert_indices"):
        _require(name, arrays[name], shape, "iu")
    if not isinstance(raw.num_tokens, (int, np.integer)) or raw.num_tokens != num_tokens:
        raise Malformed(f"num_tokens={raw.num_tokens!r}, but should be {num_tokens}")
    tokens = arrays["token_indices"].astype(np.int64)
    routes = np.bincount(tokens[(tokens >= 0) & (tokens < num_tokens)], minlength=num_tokens)
    if (routes != slots).any():
        t = int(np.argmax(routes != slots))
        held = counted(int(routes[t]), "route")
        due = f"K={config.top_k}" + f" and {slots - config.top_k} shared" * (slots > config.top_k)
        raise Malformed(f"token {t} has {held} in token_indices, but should have {due}")
    order = np.argsort(tokens, kind="stable")
    rows = (num_tokens, slots)
    weights = arrays["scores"][order].reshape(rows)
    return weights, arrays["expert_indices"][order].reshape(rows), "scores"


def _map(
    arrays: dict[str, npt.NDArray[Any]], config: RouterConfig, num_tokens: int, raw: Any
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], str]:
    _present(arrays, "probs", "routing_map")
    shape = (num_tokens, config.num_experts)
    _require("probs", arrays["probs"], shape, "f")
    _require("routing_map", arrays["routing_map"], shape, "b")
    counts = arrays["routing_map"].sum(axis=1)
    if (counts != config.top_k).any():
        t = int(np.argmax(counts != config.top_k))
        held = counted(int(counts[t]), "expert")
        raise Malformed(f"routing_map[{t}] has {held}, but should have K={config.top_k}")
    ids = np.nonzero(arrays["routing_map"])[1].reshape(num_tokens, config.top_k)
    return np.take_along_axis(arrays["probs"], ids, axis=1), ids, "probs"


def _dense(
    arrays: dict[str, npt.NDArray[Any]], config: RouterConfig, num_tokens: int, raw: Any
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], str]:
    """Convert what shows of a dense answer; what does not, ``judge.hidden`` finds."""
    _present(arrays, "weights")
    _require("weights", arrays["weights"], (num_tokens, config.num_experts), "f")
    counts = (arrays["weights"] != 0.0).sum(axis=1)
    if (counts > config.top_k).any():
        t = int(np.argmax(counts > config.top_k))
        held = counted(int(counts[t]), "expert")
        raise Malformed(
            f"weights[{t}] has {held} with a weight, but should have K={config.top_k} or fewer"
        )
    return *weights_of(arrays["weights"], config.top_k), "weights"


_CONVERT = {"Routing": _routing, "FlatRouting": _flat, "RoutingMap": _map, "DenseRouting": _dense}


def _present(arrays: dict[str, npt.NDArray[Any]], *names: str) -> None:
    for name in names:
        if name not in arrays:
            raise Malformed(f"{name} is None, but should be an array")


def _require(name: str, array: npt.NDArray[Any], shape: tuple[int, ...], kinds: str) -> None:
    words = {"f": "floating point", "iu": "integers", "b": "bool"}
    if array.dtype.kind not in kinds:
        raise Malformed(f"{name} is of dtype {array.dtype}, but should be {words[kinds]}")
    if array.shape != shape:
        raise Malformed(f"{name} has shape {array.shape}, but should be {shape}")


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
