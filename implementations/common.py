"""What several backends claim alike: the calls that each of them can be given."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from moe_routing.implementations.capabilities import Capabilities, Takes
from moe_routing.implementations.claims import GATE_AXES, Claim, GroupRule
from moe_routing.implementations.contradictions import contradiction
from moe_routing.implementations.limits import Limits
from moe_routing.implementations.permitted import ANY, AnyValue

_EITHER = (False, True)


class NothingInCommon(Exception):
    """No call is claimed by all of several backends; the message names the axis."""


def in_common(named: Mapping[str, Capabilities]) -> Capabilities:
    """Return what all of ``named``, capabilities by the name of their backend, claim.

    Its numerics are the plain ones: each backend declares its own. Of a backend that takes
    logits, the gate's parts do not count; no other than plain logits are common with it.
    Errors: ``NothingInCommon``, in one line.
    """
    takes: Takes = "logits" if any(each.takes == "logits" for each in named.values()) else "hidden"
    (name, common), *rest = ((name, _taking(each, takes)) for name, each in named.items())
    for other, each in rest:
        common = _both(name, common, other, each)
        name = f"{name} with {other}"
    return common


def _taking(capabilities: Capabilities, takes: Takes) -> Capabilities:
    """Return capabilities as those of a backend that is given logits, if others ``take`` those."""
    if takes == "hidden":
        return capabilities
    claims = (each.narrowed({"input_norm": (False,)}) for each in capabilities.claims)
    free: dict[str, Any] = dict.fromkeys(GATE_AXES, _EITHER) if capabilities.takes == takes else {}
    kept = tuple(replace(each, **free) for each in claims if each is not None)
    return replace(capabilities, claims=kept, takes=takes)


def _both(one_name: str, one: Capabilities, other_name: str, other: Capabilities) -> Capabilities:
    who = f"{one_name} and {other_name} have nothing in common"
    dtypes = tuple(each for each in one.dtypes if each in other.dtypes)
    if not dtypes:
        raise NothingInCommon(f"{who}: dtypes={_list(one.dtypes)} and {_list(other.dtypes)}")
    limits = _limits(one.limits, other.limits)
    claims = tuple(dict.fromkeys(_claims(one, other)))
    if not claims:
        raise NothingInCommon(f"{who}: {_apart(one, other)}")
    roomy = tuple(each for each in claims if limits is not None and _has_room(limits, each))
    if limits is None or not roomy:
        first, second = one.limits.described(), other.limits.described()
        raise NothingInCommon(f"{who}: Limits({first}) and Limits({second}) leave no size")
    strided = "strided" in one.layouts and "strided" in other.layouts
    return Capabilities(
        claims=roomy,
        dtypes=dtypes,
        layouts=("contiguous", "strided") if strided else ("contiguous",),
        takes=one.takes,
        logits=one.logits if one.logits == other.logits else "none",
        limits=limits,
    )


def _limits(one: Limits, other: Limits) -> Limits | None:
    """Return the limits of both, or None where no number of experts, slots or tokens is left."""
    mine, others = vars(one), vars(other)
    most: dict[str, Any] = {
        name: min((n for n in (mine[name], others[name]) if n), default=None)
        for name in mine
        if name.startswith("max_")
    }
    least: dict[str, Any] = {n: max(mine[n], others[n]) for n in mine if n.startswith("min_")}
    sets = {name: _values(mine[name], others[name]) for name in ("experts", "top_k")}
    step = math.lcm(one.experts_multiple_of, other.experts_multiple_of)
    try:
        return Limits(**most, **least, **sets, experts_multiple_of=step)
    except ValueError:
        return None


def _has_room(limits: Limits, claim: Claim) -> bool:
    try:
        limits.check_rules("a claim", claim.groups)
    except ValueError:
        return False
    return limits.has_room(claim.top_k, grouped=None not in claim.groups)


def _claims(one: Capabilities, other: Capabilities) -> Iterator[Claim]:
    """Yield what each two of the claims have in common, where that is something."""
    for first in one.claims:
        for second in other.claims:
            axes = _shared(first, second)
            if all(_permits(each) for each in axes.values()) and not contradiction(axes):
                yield Claim(**axes)


def _shared(first: Claim, second: Claim) -> dict[str, Any]:
    """Return the values that two claims both permit, by axis; an axis may be left with none."""
    mine, others = vars(first), vars(second)
    return {axis: _values(mine[axis], others[axis]) for axis in mine if axis != "name"}


def _values(one: Any, other: Any) -> Any:
    if one is ANY or other is ANY:
        return other if one is ANY else one
    if isinstance(one, AnyValue) or isinstance(other, AnyValue):
        both = isinstance(one, AnyValue) and isinstance(other, AnyValue)
        return one if both else tuple(n for n in _ends(one, other) if n in one and n in other)
    if isinstance(one, range) and isinstance(other, range) and one.step == other.step == 1:
        return range(max(one.start, other.start), min(one.stop, other.stop))
    short, long = sorted((one, other), key=len)
    rules = [_rule(a, b) for a in short for b in long if isinstance(a, GroupRule)]
    plain = [each for each in short if not isinstance(each, GroupRule) and each in long]
    return (*plain, *dict.fromkeys(each for each in rules if each is not None))


def _ends(one: Any, other: Any) -> Any:
    """Return those values, of two axes, that are listed."""
    return other if isinstance(one, AnyValue) else one


def _rule(one: Any, other: Any) -> GroupRule | None:
    """Return the group settings that follow both rules, or None where there are none."""
    if not isinstance(one, GroupRule) or not isinstance(other, GroupRule):
        return None
    top, fill = _values(one.top, other.top), _values(one.fill, other.fill)
    each = _values(one.from_each, other.from_each)
    return (
        GroupRule(top=top, fill=fill, from_each=each) if _permits(top) and fill and each else None
    )


def _apart(one: Capabilities, other: Capabilities) -> str:
    """Name the axes on which the nearest two of the claims differ."""
    pairs = [(first, second) for first in one.claims for second in other.claims]
    if not pairs:
        return "one of them claims nothing"

    def lacking(first: Claim, second: Claim) -> list[str]:
        return [axis for axis, each in _shared(first, second).items() if not _permits(each)]

    first, second = min(pairs, key=lambda pair: len(lacking(*pair)))
    axes = [
        f"{axis}={_list(getattr(first, axis))} and {_list(getattr(second, axis))}"
        for axis in lacking(first, second)
    ]
    return ", ".join(axes) or f"{contradiction(_shared(first, second))}"


def _permits(values: Any) -> bool:
    return values is ANY or bool(values)


def _list(values: Any) -> str:
    return str(values) if isinstance(values, (AnyValue, range)) else "/".join(map(str, values))
