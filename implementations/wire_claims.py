"""What a backend in another process claims, read from JSON."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from moe_routing.implementations.balances import Balances
from moe_routing.implementations.capabilities import Capabilities, Numerics
from moe_routing.implementations.claims import Claim, GroupRule
from moe_routing.implementations.composes import Composes
from moe_routing.implementations.computes import Computes
from moe_routing.implementations.differentiates import Differentiates
from moe_routing.implementations.drops import Drops
from moe_routing.implementations.from_two import FromTwo
from moe_routing.implementations.limits import Limits
from moe_routing.implementations.pads import Pads
from moe_routing.implementations.permitted import ANY, POSITIVE
from moe_routing.implementations.permutes import Permutes
from moe_routing.implementations.promises import Promises
from moe_routing.implementations.replays import Replays
from moe_routing.implementations.shards import Shards
from moe_routing.reference import Renormalize, SharedSlots
from moe_routing.reference.checks import is_number
from moe_routing.reference.jsonform import from_json

_LISTS = ("claims", "dtypes", "layouts")


def capabilities_from_json(data: Any) -> Capabilities:
    """Return the capabilities that a hello holds. Errors: ``ValueError``, in one line."""
    given = dict(_object("capabilities", data, Capabilities))
    for name in _LISTS:
        if name in given:
            given[name] = _listed(name, given[name])
    if "limits" in given:
        given["limits"] = _limits(given["limits"])
    for name, part in (("numerics", Numerics), ("shards", Shards)):
        if name in given:
            given[name] = part(**_object(name, given[name], part))
    if "promises" in given:
        made = dict(_object("promises", given["promises"], Promises))
        if "served_by" in made:
            made["served_by"] = _listed("served_by", made["served_by"])
        given["promises"] = Promises(**made)
    if "permutes" in given:
        given["permutes"] = _permutes(given["permutes"])
    if "gradients" in given:
        table = _object("gradients", given["gradients"], Differentiates)
        given["gradients"] = Differentiates(**{n: _axis(n, each) for n, each in table.items()})
    if "replays" in given:
        given["replays"] = _replays(given["replays"])
    if "pads" in given:
        table = _object("pads", given["pads"], Pads)
        given["pads"] = Pads(
            **{n: each if n == "sentinel" else _axis(n, each) for n, each in table.items()}
        )
    if "computes" in given:
        given["computes"] = _computes(given["computes"])
    for name, kind in (("drops", Drops), ("balances", Balances)):
        if name in given:
            given[name] = _axes(name, given[name], kind)
    if "composes" in given:
        table = _object("composes", given["composes"], Composes)
        given["composes"] = Composes(**{n: _listed(n, each) for n, each in table.items()})
    if "claims" in given:
        given["claims"] = tuple(_claim(each) for each in given["claims"])
    return Capabilities(**{**given, "layouts": ("contiguous",)})


def _limits(data: Any) -> Limits:
    given = dict(_object("limits", data, Limits))
    for name in ("experts", "top_k"):
        if name in given:
            given[name] = _axis(name, given[name])
    return Limits(**given)


def _permutes(data: Any) -> Permutes:
    given = _object("permutes", data, Permutes)
    numbers = {name: each for name, each in given.items() if name.startswith("max_")}
    axes = {name: _axis(name, each) for name, each in given.items() if name not in numbers}
    return Permutes(**axes, **numbers)


def _replays(data: Any) -> Replays:
    given = _object("replays", data, Replays)
    return Replays(**{n: x if n == "same_bits" else _axis(n, x) for n, x in given.items()})


def _computes(data: Any) -> Computes:
    given = _object("computes", data, Computes)
    plain = {n: each for n, each in given.items() if n == "products" or n.startswith("max_")}
    plain |= {n: each for n, each in given.items() if n.endswith("_multiple_of")}
    axes: dict[str, Any] = {
        n: _axis(n, each) if n in ("limits", "alphas") else _listed(n, each)
        for n, each in given.items()
        if n not in plain
    }
    return Computes(**axes, **plain)


def _axes(name: str, data: Any, kind: type[Any]) -> Any:
    given = _object(name, data, kind)
    numbers = {name: each for name, each in given.items() if name.startswith("max_")}
    axes = {name: _axis(name, each) for name, each in given.items() if name not in numbers}
    return kind(**axes, **numbers)


def _claim(data: Any) -> Claim:
    given = _object("a claim", data, Claim)
    axes = {name: value if name == "name" else _axis(name, value) for name, value in given.items()}
    later = ("shared_slots", _shared_slots)
    for name, part in (("groups", _rule), ("renormalize", _renormalize), later):
        if isinstance(axes.get(name), tuple):
            axes[name] = tuple(None if each is None else part(each) for each in axes[name])
    if isinstance(axes.get("scale"), tuple):
        axes["scale"] = tuple(_number("scale", each) for each in axes["scale"])
    return Claim.plain(**axes)


def _rule(data: Any) -> GroupRule:
    given = _object("a rule for groups", data, GroupRule)
    return GroupRule(**{name: _axis(name, value) for name, value in given.items()})


def _shared_slots(data: Any) -> SharedSlots:
    given = dict(_object("shared_slots", data, SharedSlots))
    if "weight" in given:
        given["weight"] = _number("weight", given["weight"])
    return SharedSlots(**given)


def _renormalize(data: Any) -> Renormalize | FromTwo:
    given = dict(data) if isinstance(data, dict) else data
    later = isinstance(given, dict) and given.pop("from_two", False)
    given = _object("a rule for renormalize", given, Renormalize)
    rule = Renormalize(**{name: _number(name, value) for name, value in given.items()})
    return FromTwo(rule) if later else rule


def _axis(name: str, value: Any) -> Any:
    if (name, value) == ("scale", "positive"):
        return POSITIVE
    return ANY if value == "any" else _listed(name, value)


def _listed(name: str, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        shown = _shown(value)
        raise ValueError(f"{name} is {shown}, but should be a list: write [{shown}]")
    return tuple(from_json(each) for each in value)


def _number(name: str, value: Any) -> float:
    number = from_json(value)
    if not is_number(number):
        raise ValueError(f"{name} has {_shown(value)}, but should have a number")
    return float(number)


def _object(name: str, value: Any, kind: type) -> dict[str, Any]:
    """Return a JSON object that has no keys but the fields of ``kind``."""
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {_shown(value)}, but should be a JSON object")
    known = [each.name for each in fields(kind)]
    for key in value:
        if key not in known:
            raise ValueError(f"{name} has the unknown key {_shown(key)}{_hint(key, known)}")
    return value


def _hint(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; expected only {', '.join(known)}"


def _shown(value: Any) -> str:
    return json.dumps(value)[:60]
