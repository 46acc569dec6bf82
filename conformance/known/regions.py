"""Regions: the ``when`` of a known divergence, read off cases and checked for mistakes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.cases.kinds import kind_of
from moe_routing.conformance.events import EVENTS
from moe_routing.implementations.claims import INPUT_AXES, SELECTION_BIAS
from moe_routing.implementations.computes import EXPERTS_AXES
from moe_routing.implementations.replays import RECORD_AXES
from moe_routing.reference.config import LEAST_PRECISE, SCORES, WEIGHTS_FROM
from moe_routing.reference.formats import INPUT_FORMATS
from moe_routing.reference.jsonform import PARTS
from moe_routing.reference.shared_experts import SHARED_KINDS

Region = Mapping[str, tuple[Any, ...]]
"""The permitted values of each key; every key must have one of its values."""

_LEAST = re.compile(r">-?\d+(\.\d+)?")

_WORDS: dict[str, tuple[Any, ...]] = {
    "dtype": tuple(INPUT_FORMATS),
    "score": SCORES,
    "weights_from": WEIGHTS_FROM,
    "logits_dtype": LEAST_PRECISE,
    "scores_dtype": LEAST_PRECISE,
    "weights_dtype": LEAST_PRECISE,
    "selection_bias": SELECTION_BIAS,
    "kind": SHARED_KINDS,
    "gated": (True, False),
    **{name: (True, False) for name in INPUT_AXES if name != "selection_bias"},
    **dict.fromkeys((*EXPERTS_AXES, *RECORD_AXES), (True, False)),
    **dict.fromkeys(PARTS, ("present", "absent")),
}


def holds(region: Region, facts: Any, case: AnyCase) -> bool:
    """Return whether ``case`` lies in the region.

    ``facts`` is what events are read off (see ``facts_of``); without them no event holds.
    """
    events = region.get("events", ())
    if events and (facts is None or not all(EVENTS[slug].occurs(facts) for slug in events)):
        return False
    return outlines(region, case)


def outlines(region: Region, case: AnyCase) -> bool:
    """Return whether ``case`` lies in the region but for its events, which cost bounds."""
    return all(
        any(_same(read(name, case), value) for value in values)
        for name, values in region.items()
        if name != "events"
    )


def check_region(region: Region, witness: AnyCase) -> None:
    """Raise ``ValueError`` for a key that names nothing, and for a value that nothing can have."""
    for name, values in region.items():
        for value in values:
            if name == "events":
                if not isinstance(value, str) or value not in EVENTS:
                    raise ValueError(f"unknown event {value!r}; `moe-routing clauses` lists them")
                continue
            try:
                now = read(name, witness)
            except AttributeError as error:
                raise ValueError(f"unknown key when.{name}: {error}") from error
            _check_value(name, value, now)


def _check_value(name: str, value: Any, now: Any) -> None:
    words = _WORDS.get(name)
    if words is not None and not any(type(value) is type(w) and value == w for w in words):
        raise ValueError(f"when.{name} is {value!r}, but should be {_either(words)}")
    if words is not None or (value in ("present", "absent") and name == "logit_softcap"):
        return
    if isinstance(now, str) and not isinstance(value, str):
        raise ValueError(f"when.{name} is {value!r}, but should be a word such as {now!r}")
    if not isinstance(now, str) and not _is_number(value):
        raise ValueError(f"when.{name} is {value!r}, but should be a number")


def _either(words: tuple[Any, ...]) -> str:
    shown = [str(word).lower() if isinstance(word, bool) else repr(word) for word in words]
    return f"{', '.join(shown[:-1])} or {shown[-1]}"


def _is_number(value: Any) -> bool:
    return value in ("inf", "-inf") or isinstance(value, (int, float)) or _is_least(value)


def _is_least(value: Any) -> bool:
    """Return whether a value is a lower limit, such as ``">256"``."""
    return isinstance(value, str) and _LEAST.fullmatch(value) is not None


def read(name: str, case: AnyCase) -> Any:
    """Return what a key names; a field of an absent part is None. Errors: ``AttributeError``."""
    if name == "dtype":
        return case.dtype
    if name == "tokens":
        return case.num_tokens
    if name in (axes := kind_of(case).axes):
        return axes[name](case.inputs)
    head, _, field_ = name.partition(".")
    part: Any = getattr(case.config, head)
    if not field_:
        return part
    if head not in PARTS or field_ not in {each.name for each in fields(PARTS[head])}:
        raise AttributeError(f"a {head} has no field {field_!r}")
    return None if part is None else getattr(part, field_)


def _same(value: Any, listed: Any) -> bool:
    if listed == "absent":
        return value is None
    if listed == "present":
        return value is not None
    if _is_least(listed):
        return value is not None and value > float(listed[1:])
    if listed in ("inf", "-inf") and isinstance(value, float):
        return value == float(listed)
    return bool(value == listed)
