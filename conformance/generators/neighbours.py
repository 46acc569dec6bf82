"""Neighbours: the valid calls one step away, to check that a backend refuses what it lacks.

A backend with checks of its own may forget one axis, and a call that is outside
its claims in two axes is refused for the other one. So each neighbour differs in one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.generators import axes
from moe_routing.conformance.generators.choices import GATE_BUDGET
from moe_routing.conformance.generators.construct import take_tokens, with_inputs
from moe_routing.conformance.generators.ranges import MOST_EXPERTS
from moe_routing.implementations import ANY, Limits
from moe_routing.implementations.limits import GROUPED
from moe_routing.implementations.permitted import listed
from moe_routing.reference import (
    Groups,
    RmsNorm,
    RouterConfig,
    SharedSlots,
    check_inputs,
)
from moe_routing.reference.config import LEAST_PRECISE, SCORES, WEIGHTS_FROM
from moe_routing.reference.formats import INPUT_FORMATS
from moe_routing.reference.inputs import BIAS_ON, OF_GATE

_FIELDS: dict[str, Callable[[RouterConfig, Limits], tuple[Any, ...]]] = {
    "top_k": lambda c, _: (c.top_k - 1, c.top_k + 1),
    "score": lambda c, _: SCORES,
    "weights_from": lambda c, _: WEIGHTS_FROM,
    "groups": lambda c, limits: (None, *_groups(c, limits)),
    "renormalize": lambda c, _: tuple(dict.fromkeys(axes.RENORMALIZATIONS)),
    "scale": lambda c, _: (*axes.SCALES[:2], 0.0, -1.0),
    "logit_softcap": lambda c, _: (None, axes.SOFTCAPS[0]),
    "logit_multiplier": lambda c, _: (1.0, axes.MULTIPLIERS[0]),
    "input_norm": lambda c, _: (None, RmsNorm()),
    "logits_dtype": lambda c, _: LEAST_PRECISE,
    "scores_dtype": lambda c, _: LEAST_PRECISE,
    "weights_dtype": lambda c, _: LEAST_PRECISE,
    "shared_slots": lambda c, _: _shared(c.shared_slots),
}
"""What each field of a configuration may be instead."""


def _shared(slots: SharedSlots | None) -> tuple[SharedSlots | None, ...]:
    """Return other shared slots, and none: who has none may never have heard of them."""
    if slots is None:
        return ()
    more = replace(slots, count=slots.count + 1)
    return (None, more, replace(slots, weight=slots.weight / 2))


_FURTHER = 4  # how many steps of E an unlisted number is looked for in


def neighbours(case: Case, limits: Limits) -> Iterator[Case]:
    """Yield the valid calls that differ from ``case`` in one axis, or are just beyond a limit."""
    yield from _other_fields(case, limits)
    for make in (_other_arrays, _other_dtypes):
        yield from make(case)
    yield from _beyond(case, limits)


def _valid(made: Callable[[], Case]) -> Iterator[Case]:
    """Yield what is made, unless it is no valid call."""
    try:
        case = made()
        check_inputs(case.config, case.inputs)
    except ValueError:
        return
    yield case


def _other_fields(case: Case, limits: Limits) -> Iterator[Case]:
    for name, offered in _FIELDS.items():
        for value in offered(case.config, limits):
            if value != getattr(case.config, name):
                yield from _valid(partial(_with_field, case, name, value))


def _with_field(case: Case, name: str, value: Any) -> Case:
    changed = replace(case, config=replace(case.config, **{name: value}))
    if name != "input_norm":
        return changed
    ones = None if value is None else np.ones(case.inputs.hidden_size, np.float32)
    return with_inputs(changed, hidden_scale=ones)


def _groups(config: RouterConfig, limits: Limits) -> Iterator[Groups]:
    """Yield groups of every rule, of which as few are kept as hold K experts.

    They are within the limits if they can be, so that a rule alone keeps a call from being claimed.
    A share of every group is not among them: who never heard of it cannot refuse it.
    """
    fitting = dict(limits.groupings(config.num_experts, config.top_k))
    fitting = fitting or dict(Limits().groupings(config.num_experts, config.top_k))
    count = next((n for n in (2, 3, 5, 7) if n in fitting), next(iter(fitting)))
    kept = fitting[count][0]
    for top in (1, 2, 3):
        for fill in (-np.inf, 0.0):
            yield Groups(count=count, kept=kept, top=top, fill=fill)


def _other_arrays(case: Case) -> Iterator[Case]:
    arrays = _arrays(case)
    for name, array in arrays.items():
        absent = getattr(case.inputs, name) is None
        given = {name: array if absent else None}
        yield from _valid(partial(with_inputs, case, **given))
    bias = case.inputs.selection_bias
    bias = arrays["selection_bias"] if bias is None else bias
    for place in BIAS_ON:
        yield from _valid(partial(with_inputs, case, selection_bias=bias, selection_bias_on=place))
    yield from _valid(lambda: _with_table(case))


def _arrays(case: Case) -> dict[str, npt.NDArray[np.float32]]:
    """Return the optional arrays, each such that ignoring it gives a wrong answer."""
    rising = np.arange(case.config.num_experts, dtype=np.float32)
    small = rising % 128  # what every dtype holds
    return {
        "selection_bias": rising,
        "gate_bias": small,
        "gate_delta": np.repeat(small[:, None], case.inputs.hidden_size, axis=1),
        "per_expert_scale": 1 + small,
    }


def _with_table(case: Case) -> Case:
    if case.inputs.expert_table is not None:
        return with_inputs(case, expert_table=None, token_ids=None)
    table = np.arange(case.config.top_k)[None, ::-1]
    return with_inputs(
        case, expert_table=table, token_ids=np.zeros(case.inputs.num_tokens, np.int64)
    )


def _other_dtypes(case: Case) -> Iterator[Case]:
    for dtype in INPUT_FORMATS:
        if dtype != case.inputs.dtype:
            yield from _valid(partial(with_inputs, case, dtype=dtype))
    if case.inputs.gate_dtype == "float32":
        yield from _valid(lambda: _with_narrow_gate(case))


def _with_narrow_gate(case: Case) -> Case:
    """Return the call with the gate, or the given logits, in the 16 bits of the hidden states.

    The other way round nothing is to be refused: a wide gate came after 1.0.
    """
    inputs, form = case.inputs, INPUT_FORMATS[case.inputs.dtype]
    arrays = {name: each for name, each in inputs.arrays().items() if name in OF_GATE}
    rounded = {name: np.float32(form.round(each)) for name, each in arrays.items()}
    return with_inputs(case, **rounded, gate_dtype="input")


def _beyond(case: Case, limits: Limits) -> Iterator[Case]:
    """Yield the call just beyond each of the limits, within the others where that can be.

    A limit may be as large as an index: what is too large for any case is skipped.
    """
    yield from _beyond_tokens(case, limits)
    step, width = limits.experts_multiple_of, max(1, case.inputs.num_tokens)
    most = GATE_BUDGET // max(width, case.inputs.hidden_size)
    if step > 1:
        yield from _valid(lambda: _with_experts(case, case.config.num_experts + 1))
    if limits.max_experts and (more := (limits.max_experts // step + 1) * step) <= most:
        yield from _valid(lambda: _with_experts(case, more))
    if limits.max_top_k and limits.max_top_k + step <= most:
        yield from _valid(partial(_with_top_k, case, limits.max_top_k + 1, step))
    for name in ("experts", "top_k"):
        if (number := _unlisted(name, getattr(case.config, _SIZES[name]), limits)) is not None:
            make = _with_experts if name == "experts" else partial(_with_top_k, step=step)
            yield from _valid(partial(make, case, number))
    for name in GROUPED if case.config.groups is not None else ():
        yield from _beyond_groups(case, limits, name, most)


_SIZES = {"experts": "num_experts", "top_k": "top_k"}


def _beyond_tokens(case: Case, limits: Limits) -> Iterator[Case]:
    tokens = case.inputs.num_tokens
    most = GATE_BUDGET // max(case.config.num_experts, case.inputs.hidden_size)
    if limits.max_tokens and tokens > 0 and limits.max_tokens < most:
        yield take_tokens(case, np.arange(limits.max_tokens + 1) % tokens)
    if 0 < limits.min_tokens <= tokens:
        yield take_tokens(case, np.arange(limits.min_tokens - 1))


def _unlisted(name: str, size: int, limits: Limits) -> int | None:
    """Return the least number above ``size`` that only a list of E or of K leaves out, or None."""
    permitted = getattr(limits, name)
    if listed(permitted) is None:
        return None
    others = replace(limits, experts=ANY, top_k=ANY)

    def within(number: int) -> bool:
        if name == "experts":
            return others.permits_experts(number)
        return number <= (limits.max_top_k or number)

    near = range(size + 1, size + 1 + _FURTHER * limits.experts_multiple_of)
    return next((n for n in near if n not in permitted and within(n)), None)


def _beyond_groups(case: Case, limits: Limits, name: str, most: int) -> Iterator[Case]:
    """Yield the call of the fewest experts whose groups are beyond this limit alone."""
    found = _grouping_beyond(limits, name, case.config.top_k)
    if found is None or found[0] > most:
        return
    num_experts, count, kept = found
    rule = case.config.groups
    assert rule is not None, "only calls with groups are beyond a limit of groups"
    groups = replace(rule, count=count, kept=kept)
    yield from _valid(partial(_with_experts, case, num_experts, groups=groups))


@cache
def _grouping_beyond(limits: Limits, name: str, top_k: int) -> tuple[int, int, int] | None:
    """Return E, and how many groups there are and are kept, refused for one limit alone."""
    plain: dict[str, Any] = {name: getattr(Limits(), name)}
    others = replace(limits, **plain)
    if others == limits:
        return None
    for num_experts in range(top_k, MOST_EXPERTS + 1):
        if not limits.permits_experts(num_experts):
            continue
        for count, fitting in others.groupings(num_experts, top_k):
            for kept in (fitting[0], fitting[-1]):
                if limits.group_refusals(num_experts, count, kept):
                    return num_experts, count, kept
    return None


def _with_top_k(case: Case, top_k: int, step: int) -> Case:
    experts = max(case.config.num_experts, -(-top_k // step) * step)
    larger = _with_experts(case, experts)
    return replace(larger, config=replace(larger.config, top_k=top_k))


def _with_experts(case: Case, count: int, **settings: Any) -> Case:
    """Return ``case`` with ``count`` experts, again from the first where there are more.

    ``settings`` are fields of the configuration that change with them.
    """
    inputs, experts = case.inputs, np.arange(count) % case.config.num_experts
    per_expert = ("gate_weight", "gate_bias", "gate_delta", "selection_bias", "per_expert_scale")
    changes = {n: getattr(inputs, n)[experts] for n in per_expert if getattr(inputs, n) is not None}
    if inputs.logits is not None:
        changes["logits"] = inputs.logits[:, experts]
    config = replace(case.config, num_experts=count, **settings)
    return replace(with_inputs(case, **changes), config=config)
