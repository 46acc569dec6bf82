"""Events of the logits: what decides them, and how large they get."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.again import cases_of
from moe_routing.conformance.events.registry import ROWS, event
from moe_routing.conformance.events.sizes import ladder
from moe_routing.conformance.generators.construct import table_cases, with_inputs
from moe_routing.conformance.generators.scenes import fitting_experts
from moe_routing.conformance.judge import Bounds
from moe_routing.implementations import Capabilities
from moe_routing.reference.formats import BFLOAT16, Bools, Floats


@event(
    "exact-logits",
    "logits of several terms that no order of summation rounds",
    lambda b: bool(b.logits.exact.any()) and b.inputs.num_tokens > 0,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from cases_of("any-case", capabilities)


def _norm_near_epsilon(bounds: Bounds) -> bool:
    rule = bounds.config.input_norm
    if rule is None:
        return False
    mean_square = np.mean(bounds.inputs.hidden.astype(np.float64) ** 2, axis=1)
    return bool(((mean_square > 0.0) & (mean_square <= 8.0 * rule.eps)).any())


@event(
    "input-norm-beside-epsilon",
    "hidden states so small that the epsilon of their norm changes them by a twentieth or more",
    _norm_near_epsilon,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    wants = {"logit ops": lambda ops: "input_norm" in ops}
    for experts, top_k, least in product((4, 12), (2, 1), (2.0**-10, 2.0**-4)):
        rows = ladder(3, fitting_experts(capabilities, experts)) * least
        yield from table_cases(capabilities, rows, top_k=top_k, wants=wants)


def _part_decides(name: str) -> Callable[[Bounds], bool]:
    without: dict[str, Any] = {name: None}

    def occurs(bounds: Bounds) -> bool:
        bounds = bounds.differing
        if getattr(bounds.inputs, name) is None:
            return False
        plain = Bounds(bounds.config, replace(bounds.inputs, **without), bounds.numerics)
        a = np.sort(bounds.reference.expert_ids, axis=1)
        b = np.sort(plain.reference.expert_ids, axis=1)
        sure = bounds.only_reference & plain.only_reference
        return bool(((a != b).any(axis=1) & sure).any())

    return occurs


@event("delta-decides", "the LoRA delta changes which experts win", _part_decides("gate_delta"))
def _(capabilities: Capabilities) -> Iterator[Case]:
    delta = np.zeros((4, 4), np.float32)
    delta[3, 0], delta[2, 1] = 2.0, 4.0
    for top_k in (1, 2):
        yield from table_cases(
            capabilities,
            [[2.0, 1.0, 0.0, -1.0], [0.0, 2.0, -1.0, -2.0]],
            top_k=top_k,
            gate_delta=delta,
        )


@event("gate-bias-decides", "the linear bias changes which experts win", _part_decides("gate_bias"))
def _(capabilities: Capabilities) -> Iterator[Case]:
    for top_k in (1, 2):
        yield from table_cases(
            capabilities,
            [[2.0, 1.0, 0.0, -1.0], [1.0, 2.0, -1.0, 0.0]],
            top_k=top_k,
            gate_bias=[0.0, 0.0, 4.0, 5.0],
        )


@event(
    "large-logits",
    "logits whose exponential overflows float32",
    lambda b: bool((np.abs(b.reference.operated[b.judged]) > 89.0).any()),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[100.0, 120.0, -100.0, 96.0], [1000.0, 992.0, 1016.0, -1000.0]]
    yield from table_cases(capabilities, rows, top_k=2)
    yield from table_cases(capabilities, rows, top_k=1)


def _row(slug: str, statement: str, row: Sequence[float], test: Callable[[Floats], Bools]) -> None:
    """Register an event of logits ``[T, E]`` for which ``test`` holds in some row."""

    @event(slug, statement, lambda b: bool(test(b.reference.logits).any()))
    def _(capabilities: Capabilities) -> Iterator[Case]:
        for experts, top_k in ((len(row), 2), (len(row), 1), (64, 2)):
            table = np.resize(row, (1, fitting_experts(capabilities, experts)))
            yield from table_cases(capabilities, table, top_k=top_k)
            wide = [1024.0] * table.shape[1]
            yield from table_cases(capabilities, table, top_k=top_k, hidden_scale=wide)


_row(
    "all-negative-logits",
    "a token whose logits are all finite and negative",
    (-1.0, -0.25, -2.0, -0.5),
    lambda z: np.all((z < 0) & np.isfinite(z), axis=1),
)
_row(
    "all-zero-logits",
    "a token whose logits are all 0",
    (0.0, 0.0, 0.0, 0.0),
    lambda z: (z == 0.0).all(axis=1) & (z.shape[1] > 1),
)
_row(
    "logits-above-17",
    "a token with two different logits above 17, where a sigmoid of float32 is 1",
    (20.0, 24.0, 1.0, 0.0),
    lambda z: np.where(z > 17.0, z, -np.inf).max(axis=1) > np.where(z > 17.0, z, np.inf).min(1),
)
_row(
    "logits-below-minus-100",
    "a token whose logits are all finite and below -100, where exp of float32 underflows",
    (-120.0, -112.0, -200.0, -150.0),
    lambda z: np.all((z < -100.0) & np.isfinite(z), axis=1),
)


def _least_gap(bounds: Bounds) -> bool:
    """Return whether logits closer than a bfloat16 step decide, without bias, table or groups."""
    config, inputs = bounds.config, bounds.inputs
    biased = inputs.selection_bias is not None and inputs.selection_bias.any()
    grouped = config.groups is not None and config.groups.kept < config.groups.count
    if biased or grouped or inputs.expert_table is not None or config.top_k == config.num_experts:
        return False
    ranked = -np.sort(-bounds.reference.operated[bounds.only_reference], axis=1)
    last, next_ = ranked[:, config.top_k - 1], ranked[:, config.top_k]
    step = np.ldexp(1.0, np.frexp(last)[1] - BFLOAT16.precision)
    return bool((last - next_ < step).any())


@event("fine-logits", "logits apart by less than a bfloat16 step decide", _least_gap)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[1.0, 1.0 + 2.0**-9, 1.0 - 2.0**-9, 1.0 - 2.0**-8]]
    for top_k in (2, 1):
        yield from table_cases(capabilities, rows, top_k=top_k)
    for top_k in (2, 1):
        for case in _settable(table_cases(capabilities, ROWS, top_k=top_k)):
            steps = (-np.arange(case.config.num_experts)).astype(np.float64)
            yield _in_two_columns(case, 2.0**-12, steps)


@event(
    "fine-gate",
    "logits apart by less than a bfloat16 step decide, made by a gate that bfloat16 cannot hold",
    lambda b: (
        b.inputs.dtype == "float32"
        and not BFLOAT16.represents(b.inputs.gate_weight).all()
        and _least_gap(b)
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for case in _in_wide_scores(capabilities, ("float32",)):
        steps = _up_to_the_last(case.config.num_experts)
        gate = np.stack([1.0 + steps * 2.0**-12, 0.0 * steps], axis=1)
        yield with_inputs(_in_two_columns(case, 0.0, steps), gate_weight=np.float32(gate))


@event(
    "fine-logits-beside-16-bits",
    "logits in float32 decide that are one number in the 16 bits of the inputs",
    lambda b: b.inputs.dtype != "float32" and b.config.logits_dtype == "float32" and _least_gap(b),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for case in _in_wide_scores(capabilities, ("bfloat16", "float16")):
        yield _in_two_columns(case, 2.0**-14, _up_to_the_last(case.config.num_experts))


def _in_wide_scores(capabilities: Capabilities, dtypes: Sequence[str]) -> Iterator[Case]:
    """Yield calls in ``dtypes`` that hold their logits and scores in float32."""
    offered = tuple(dtype for dtype in dtypes if dtype in capabilities.dtypes)
    for top_k in (2, 1):
        narrowed = replace(capabilities, dtypes=offered)
        yield from _settable(table_cases(narrowed, ROWS, top_k=top_k, wants=_WIDE))


_WIDE = {"dtypes": lambda dtypes: dtypes[:2] == ("float32", "float32")}


def _settable(cases: Iterable[Case]) -> Iterator[Case]:
    """Yield those of ``cases`` whose logits follow from hidden states and gate alone."""
    for case in cases:
        if {*case.inputs.arrays()}.isdisjoint(("logits", "gate_delta", "hidden_scale")):
            yield case


def _up_to_the_last(experts: int) -> Floats:
    """Return steps up to 0, the best of them last: a tie-break by id would select others."""
    steps: Floats = np.maximum(np.arange(experts) - (experts - 1.0), -8.0)
    return steps


@event(
    "close-call",
    "experts decide whose scores are apart by less than 2^-14 of them, beyond rounding",
    lambda b: _close(b),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    """Yield cases of 512 experts, where a tie-break by id moves scores the most, both ways."""
    experts = fitting_experts(capabilities, 512)
    rows = np.full((2, experts), -2.0)
    rows[0, [0, -1]], rows[1, [0, -1]] = (1.0, 1.0 + 2.0**-16), (1.0 + 2.0**-16, 1.0)
    yield from table_cases(capabilities, rows, top_k=1)
    for case in _settable(table_cases(capabilities, np.ones((2, experts)), top_k=1, wants=_WIDE)):
        steps = np.zeros(case.config.num_experts)
        steps[0], steps[-case.config.top_k :] = 1.0, 2.0
        yield _in_two_columns(case, 2.0**-16, steps)


def _close(bounds: Bounds) -> bool:
    k, config = bounds.config.top_k, bounds.config
    if config.groups is not None and config.groups.from_each:
        return False  # every group has a cut of its own
    if k == config.num_experts or bounds.inputs.expert_table is not None:
        return False
    ranked = -np.sort(-bounds.reference.competing[bounds.only_reference], axis=1)
    last, next_ = ranked[:, k - 1], ranked[:, k]
    return bool(((last - next_) < 2.0**-14 * np.abs(last)).any())


def _in_two_columns(case: Case, rung: float, steps: Floats) -> Case:
    """Return ``case`` with the logits ``1 + steps * rung``, sums that 16-bit inputs can hold."""
    gate = np.stack([np.ones(len(steps)), steps], axis=1)
    hidden = np.tile([1.0, rung], (case.inputs.num_tokens, 1))
    return with_inputs(case, hidden=hidden.astype(np.float32), gate_weight=gate.astype(np.float32))
