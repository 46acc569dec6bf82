"""The wire: what the suite and a backend in another process write to each other, as JSON.

One object a line, in both directions; ``docs/protocol.md`` is the page for those who write
the other end.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar, cast

import numpy as np

from moe_routing.implementations.capabilities import Capabilities, Unsupported
from moe_routing.implementations.layouts import AnyRouting, DenseRouting, FlatRouting, RoutingMap
from moe_routing.implementations.wire_claims import capabilities_from_json
from moe_routing.reference import RouterConfig, RouterInputs, Routing
from moe_routing.reference.checks import counted
from moe_routing.reference.jsonform import config_to_json, from_json, to_json

VERSION = 1
"""The version of the protocol that this suite uses."""

LAYOUTS: dict[str, type[AnyRouting]] = {
    "routing": Routing,
    "flat_routing": FlatRouting,
    "routing_map": RoutingMap,
    "dense_routing": DenseRouting,
}
"""The answers to a routing call, by the key that holds each."""

REQUESTS = (
    "route",
    "permute",
    "gradients",
    "experts",
    "expert_gradients",
    "layer",
    "drop",
    "shard",
    "route_padded",
    "balance",
    "replay",
)
"""The methods that a backend may answer, as ``methods`` of its hello."""

_DTYPES = ("bfloat16", "bool", "float16", "float32", "float64", "int32", "int64", "uint8")
_NUMBERS = ("num_tokens", "block", "padding", "tile")  # fields that are no arrays
_MOST_AXES, _MOST_VALUES = 32, 2**60 - 1  # what NumPy and torch make arrays of


Layout = TypeVar("Layout")


class ProtocolError(Exception):
    """A reply violates the protocol; the message says how."""


class BackendError(Exception):
    """The backend replied that it cannot do the call; the message is its own."""


@dataclass(frozen=True, kw_only=True)
class Hello:
    """How a backend introduces itself: the name that reports use, and what it claims and does."""

    name: str
    capabilities: Capabilities
    methods: tuple[str, ...] = ("route",)


def hello_request(device: str) -> dict[str, Any]:
    """Return the first request: who are you, and what do you claim?"""
    return {"request": "hello", "protocol": VERSION, "device": device}


def route_request(config: RouterConfig, inputs: RouterInputs) -> dict[str, Any]:
    """Return the request to route: the configuration's fields, and the arrays that there are."""
    arrays: dict[str, Any] = {"dtype": inputs.dtype}
    if inputs.gate_dtype != "input":
        arrays["gate_dtype"] = inputs.gate_dtype
    if inputs.selection_bias is not None:
        arrays["selection_bias_on"] = inputs.selection_bias_on
    for name, array in inputs.arrays().items():
        arrays[name] = {"shape": list(array.shape), "values": to_json(array.ravel().tolist())}
    return {"request": "route", "config": config_to_json(config), "inputs": arrays}


def written(message: dict[str, Any]) -> bytes:
    """Return a message as a line."""
    return json.dumps(message, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def read(line: bytes, number: int) -> dict[str, Any]:
    """Return the reply to request ``number``. Errors: ``ProtocolError``."""
    try:
        reply = json.loads(line, parse_constant=_no_json)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"sent a reply that is not JSON, {_shown(line)}: {error}") from error
    if not isinstance(reply, dict):
        raise ProtocolError(f"sent a reply that is not a JSON object: {_shown(line)}")
    if reply.get("id") != number:
        raise ProtocolError(f"sent a reply with id {reply.get('id')!r} to request {number}")
    return reply


def read_hello(reply: dict[str, Any]) -> Hello:
    """Return how the backend introduced itself. Errors: ``BackendError``, ``ProtocolError``."""
    if "error" in reply:
        raise BackendError(str(reply["error"]))
    if "hello" not in reply:
        raise ProtocolError(f"replied to hello with keys {sorted(reply)}; expected hello")
    _check_version(table("hello", reply["hello"], "protocol")["protocol"])
    hello = table("hello", reply["hello"], "name", "capabilities")
    name = hello["name"]
    if not (isinstance(name, str) and name and name.isprintable()):
        raise ProtocolError(f"has name={name!r}; expected a non-empty printable string")
    try:
        capabilities = capabilities_from_json(hello["capabilities"])
    except ValueError as error:
        raise ProtocolError(f"has capabilities that cannot be read: {error}") from error
    return Hello(name=name, capabilities=capabilities, methods=_methods(hello))


def _methods(hello: dict[str, Any]) -> tuple[str, ...]:
    """Return the requests that a backend answers: ``route`` where it does not say."""
    methods = hello.get("methods", ["route"])
    if not isinstance(methods, list) or not methods or set(methods) - {*REQUESTS}:
        known = ", ".join(REQUESTS)
        raise ProtocolError(f"has methods={methods!r:.60}; expected a list of {known}")
    return tuple(methods)


def _check_version(version: Any) -> None:
    """Raise ``ProtocolError`` for another version, of which nothing else can be read."""
    if type(version) is not int:
        raise ProtocolError(f"has protocol={version!r:.60}; expected the number {VERSION}")
    if version != VERSION:
        older = "this suite" if version > VERSION else "the backend"
        raise ProtocolError(
            f"speaks version {version} of the protocol, but this suite speaks {VERSION}: "
            f"update {older}"
        )


def read_answer(reply: dict[str, Any]) -> AnyRouting:
    """Return the answer to a routing call.

    Errors: ``Unsupported`` and ``BackendError``, in the backend's words; ``ProtocolError``.
    """
    return read_layout(reply, LAYOUTS)


def read_layout(reply: dict[str, Any], layouts: Mapping[str, type[Layout]]) -> Layout:
    """Return the layout that a reply holds, of those by key. Errors: as ``read_answer``."""
    key = _answered(reply, layouts)
    names = [field.name for field in fields(cast(Any, layouts[key]))]
    required = [f.name for f in fields(cast(Any, layouts[key])) if f.default is MISSING]
    given = table(key, reply[key], *required)
    if unknown := sorted(set(given) - set(names)):
        raise ProtocolError(
            f"sent unknown keys {unknown} in {key}; expected only {', '.join(names)}"
        )
    return layouts[key](**{name: part(name, value) for name, value in given.items()})


def _answered(reply: dict[str, Any], layouts: Mapping[str, object]) -> str:
    """Return the key of the layout that a reply holds. Errors: as ``read_answer``."""
    if "unsupported" in reply:
        raise Unsupported(str(reply["unsupported"]))
    if "error" in reply:
        raise BackendError(str(reply["error"]))
    found = [key for key in layouts if key in reply]
    if len(found) != 1:
        keys = ", ".join((*layouts, "unsupported", "error"))
        raise ProtocolError(f"replied with keys {sorted(reply)}; expected one of {keys}")
    return found[0]


def _no_json(word: str) -> None:
    raise ValueError(f'{word} is not JSON; write "nan", "inf" or "-inf"')


def _shown(line: bytes) -> str:
    text = line.decode(errors="replace").strip()
    return repr(text if len(text) <= 60 else f"{text[:60]}...")


def table(name: str, value: Any, *keys: str) -> dict[str, Any]:
    """Return a JSON object that has these keys. Errors: ``ProtocolError``."""
    if not isinstance(value, dict):
        raise ProtocolError(f"sent {name}={value!r:.60}; expected a JSON object")
    if missing := [key for key in keys if key not in value]:
        raise ProtocolError(f"sent {name} without {', '.join(missing)}")
    return value


def part(name: str, value: Any) -> Any:
    """Return an array, or a number where the field is one. Errors: ``ProtocolError``."""
    if name == "kernel" and not isinstance(value, str):
        raise ProtocolError(f"sent kernel={value!r:.60}; expected the name of a kernel")
    if value is None or name in ("kernel", *_NUMBERS) or type(value) is int:
        return value
    held = table(name, value, "dtype", "shape", "values")
    shape, values, dtype = held["shape"], held["values"], held["dtype"]
    if dtype not in _DTYPES:
        known = ", ".join(_DTYPES)
        raise ProtocolError(f"sent {name} of dtype {dtype!r:.60}; expected one of {known}")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise ProtocolError(f"sent {name} of shape {shape!r:.60}; expected a list of sizes")
    if len(shape) > _MOST_AXES or math.prod(max(n, 1) for n in shape) > _MOST_VALUES:
        raise ProtocolError(f"sent {name} of shape {shape!r:.60}; no array can be so large")
    if not isinstance(values, list) or len(values) != math.prod(shape):
        number = counted(len(values), "value") if isinstance(values, list) else "no list of values"
        raise ProtocolError(f"sent {name} of shape {shape} with {number}")
    return _array(name, dtype, [from_json(each) for each in values]).reshape(shape)


def _array(name: str, dtype: str, values: list[Any]) -> Any:
    """Return the values in their dtype: nearest, so that enough digits give every bit back."""
    kind = int if dtype.startswith(("int", "uint", "bool")) else (int, float)
    if bad := [each for each in values if not isinstance(each, kind)]:
        raise ProtocolError(f"sent {bad[0]!r:.60} in {name}, whose dtype is {dtype}")
    try:
        with np.errstate(over="ignore"):
            if dtype != "bfloat16":
                return np.array(values, dtype=dtype)
            import torch

            return torch.tensor(values, dtype=torch.float64).to(torch.bfloat16)
    except OverflowError as error:
        raise ProtocolError(f"sent a value in {name} that {dtype} cannot hold") from error
