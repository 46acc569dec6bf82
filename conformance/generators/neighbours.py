"""Neighbours: the valid calls one step away, to check that a backend refuses what it lacks.

A backend with checks of its own may forget one axis, and a call that is outside
its claims in two axes is refused for the other one. So each neighbour differs in one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.generators import axes
from moe_routing.conformance.generators.choices import GATE_BUDGET
from moe_routing.conformance.generators.construct import take_tokens, with_inputs
from moe_routing.implementations import Limits
from moe_routing.reference import Groups, RmsNorm, RouterConfig, check_inputs
from moe_routing.reference.config import LEAST_PRECISE, SCORES, WEIGHTS_FROM
from moe_routing.reference.formats import INPUT_FORMATS
from moe_routing.reference.inputs import BIAS_ON

_FIELDS: dict[str, Callable[[RouterConfig], tuple[Any, ...]]] = {
    "top_k": lambda c: (c.top_k - 1, c.top_k + 1),
    "score": lambda c: SCORES,
    "weights_from": lambda c: WEIGHTS_FROM,
    "groups": lambda c: (None, *_groups(c)),
    "renormalize": lambda c: tuple(dict.fromkeys(axes.RENORMALIZATIONS)),
    "scale": lambda c: axes.SCALES[:2],
    "logit_softcap": lambda c: (None, axes.SOFTCAPS[0]),
    "logit_multiplier": lambda c: (1.0, axes.MULTIPLIERS[0]),
    "input_norm": lambda c: (None, RmsNorm()),
    "logits_dtype": lambda c: LEAST_PRECISE,
    "scores_dtype": lambda c: LEAST_PRECISE,
    "weights_dtype": lambda c: LEAST_PRECISE,
}
"""What each field of a configuration may be instead."""


def neighbours(case: Case, limits: Limits) -> Iterator[Case]:
    """Yield the valid calls that differ from ``case`` in one axis, or are just beyond a limit."""
    for make in (_other_fields, _other_arrays, _other_dtypes):
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


def _other_fields(case: Case) -> Iterator[Case]:
    for name, offered in _FIELDS.items():
        for value in offered(case.config):
            if value != getattr(case.config, name):
                yield from _valid(partial(_with_field, case, name, value))


def _with_field(case: Case, name: str, value: Any) -> Case:
    changed = replace(case, config=replace(case.config, **{name: value}))
    if name != "input_norm":
        return changed
    ones = None if value is None else np.ones(case.inputs.hidden_size, np.float32)
    return with_inputs(changed, hidden_scale=ones)


def _groups(config: RouterConfig) -> Iterator[Groups]:
    """Yield groups of every rule, of which as few are kept as hold K experts."""
    count = next((n for n in (2, 3, 5, 7) if config.num_experts % n == 0), 1)
    kept = -(-config.top_k * count // config.num_experts)
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


def _beyond(case: Case, limits: Limits) -> Iterator[Case]:
    """Yield the call just beyond each of the limits, within the others where that can be.

    A limit may be as large as an index: what is too large for any case is skipped.
    """
    tokens, step = case.inputs.num_tokens, limits.experts_multiple_of
    most = GATE_BUDGET // max(case.config.num_experts, case.inputs.hidden_size)
    if limits.max_tokens and tokens > 0 and limits.max_tokens < most:
        yield take_tokens(case, np.arange(limits.max_tokens + 1) % tokens)
    most = GATE_BUDGET // max(1, tokens, case.inputs.hidden_size)
    if step > 1:
        yield from _valid(lambda: _with_experts(case, case.config.num_experts + 1))
    if limits.max_experts and (more := (limits.max_experts // step + 1) * step) <= most:
        yield from _valid(lambda: _with_experts(case, more))
    if limits.max_top_k and limits.max_top_k + step <= most:
        yield from _valid(partial(_with_top_k, case, limits.max_top_k + 1, step))


def _with_top_k(case: Case, top_k: int, step: int) -> Case:
    experts = max(case.config.num_experts, -(-top_k // step) * step)
    larger = _with_experts(case, experts)
    return replace(larger, config=replace(larger.config, top_k=top_k))


def _with_experts(case: Case, count: int) -> Case:
    """Return ``case`` with ``count`` experts, again from the first where there are more."""
    inputs, experts = case.inputs, np.arange(count) % case.config.num_experts
    per_expert = ("gate_weight", "gate_bias", "gate_delta", "selection_bias", "per_expert_scale")
    changes = {n: getattr(inputs, n)[experts] for n in per_expert if getattr(inputs, n) is not None}
    if inputs.logits is not None:
        changes["logits"] = inputs.logits[:, experts]
    config = replace(case.config, num_experts=count)
    return replace(with_inputs(case, **changes), config=config)
