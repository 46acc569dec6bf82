"""Events of logits that are not finite: NaN, infinities, experts that are lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.registry import FAMILIES, event
from moe_routing.conformance.events.sizes import ladder
from moe_routing.conformance.generators.construct import table_cases, with_inputs
from moe_routing.conformance.generators.scenes import fitting_experts
from moe_routing.conformance.judge import Bounds
from moe_routing.implementations import Capabilities
from moe_routing.reference.formats import Bools, Floats, Ids


@event("nan-row", "a row of NaN among good rows", lambda b: _some_nan_rows(b))
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[1.0, 0.25, -0.5, 2.0], [np.nan] * 4, [0.0, 1.5, 0.5, -1.0]]
    yield from table_cases(capabilities, rows, top_k=2)
    yield from table_cases(capabilities, rows, top_k=1)


def _some_nan_rows(bounds: Bounds) -> bool:
    bad = np.isnan(bounds.reference.logits).any(axis=1)
    return bool(bad.any() and not bad.all())


@event(
    "infinite-logit",
    "logits that overflow to infinity",
    lambda b: bool(
        (b.logits.overflows.any(axis=1) & ~np.isnan(b.reference.logits).any(axis=1)).any()
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for dtype, big in (("float16", 60000.0), ("float32", 3e38), ("bfloat16", 2.0**127)):
        if dtype in capabilities.dtypes and capabilities.takes == "hidden":
            yield from _overflowing(capabilities, dtype, big)


def _overflowing(capabilities: Capabilities, dtype: str, big: float) -> Iterator[Case]:
    one = replace(capabilities, dtypes=(dtype,))
    rows = [[big, -big, 0.5, 1.0], [1.0, 0.25, -0.5, 2.0]]
    for top_k in (2, 1):
        for case in table_cases(one, rows, top_k=top_k):
            gate = case.inputs.gate_weight * np.float32(8.0)
            yield with_inputs(case, gate_weight=gate, logits=None)


@event(
    "lost-expert",
    "an expert whose logit is -inf",
    lambda b: bool(np.isneginf(b.reference.logits[b.judged]).any()),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[1.0, -np.inf, -0.5, 2.0], [0.0, -np.inf, 0.5, -1.0]]
    for top_k in (2, 1):
        yield from table_cases(capabilities, rows, top_k=top_k)
        finite = [[1.0, 0.25, -0.5, 2.0], [0.0, 1.5, 0.5, -1.0]]
        bias = [0.0, -np.inf, 0.0, 0.0]
        yield from table_cases(capabilities, finite, top_k=top_k, gate_bias=bias)


def _finite(slug: str, statement: str, test: Callable[[Ids, int], Bools]) -> None:
    """Register an event of the number of finite logits of a row whose others are -inf."""

    def occurs(bounds: Bounds) -> bool:
        logits = bounds.reference.logits
        lost = np.isneginf(logits)
        known = (lost | np.isfinite(logits)).all(axis=1) & lost.any(axis=1)
        return bool((known & test((~lost).sum(axis=1), bounds.config.top_k)).any())

    @event(slug, statement, occurs)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        one = [[-np.inf, 1.0, -np.inf, -np.inf], [-np.inf, 0.25, -np.inf, -np.inf]]
        for rows, top_k in ((one, 2), ([[-np.inf] * 4], 2), ([[-np.inf] * 4], 1)):
            yield from table_cases(capabilities, rows, top_k=top_k)
            for case in table_cases(capabilities, _POSITIVE, top_k=top_k):
                yield _with_gate_at(case, np.isneginf(rows[0]), -np.inf)


_finite("few-finite-logits", "fewer than K finite logits", lambda n, k: (n > 0) & (n < k))
_finite("no-finite-logit", "a token whose logits are all -inf", lambda n, k: n == 0)


def _all_but_first_lost(bounds: Bounds) -> bool:
    logits = bounds.reference.logits[:, 1:]
    lost = np.isneginf(logits) | (bounds.logits.overflows[:, 1:] & (logits < 0.0))
    return bool(logits.shape[1] and lost.all(axis=1).any())


@event("all-but-first-lost", "every logit but expert 0's is -inf", _all_but_first_lost)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[1.0, -np.inf, -np.inf, -np.inf], [0.25, -np.inf, -np.inf, -np.inf]]
    for top_k in (2, 1):
        yield from table_cases(capabilities, rows, top_k=top_k)
        for case in table_cases(capabilities, _POSITIVE, top_k=top_k):
            yield _with_gate_at(case, np.isneginf(rows[0]), -np.inf)


FAMILIES["lost-block-of"] = (
    "every logit of a block of so many experts is -inf, and others are finite"
)


def _lost_block(block: int) -> None:
    """Register a block of experts that are lost: a running softmax meets no number in it."""

    def occurs(bounds: Bounds) -> bool:
        logits = bounds.reference.logits
        lost, rest = np.isneginf(logits[:, :block]), logits[:, block:]
        few = rest.shape[1] < bounds.config.top_k or not rest.size
        return not few and bool((lost.all(axis=1) & np.isfinite(rest).all(axis=1)).any())

    @event(f"lost-block-of:{block}-experts", f"the first {block} experts are all lost", occurs)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        for more, top_k in ((2, 2), (2, 1), (8, 8)):
            size = fitting_experts(capabilities, block + more)
            rows, lost = ladder(2, size) + 1.0, np.arange(size) < block
            yield from table_cases(capabilities, np.where(lost, -np.inf, rows), top_k=top_k)
            for case in table_cases(capabilities, rows, top_k=top_k):
                yield _with_gate_at(case, lost, -np.inf)


for _block in (64, 256):
    _lost_block(_block)


def _one_column(slug: str, statement: str, value: float, test: Callable[[Floats], Bools]) -> None:
    """Register an event of one logit of ``value`` among finite ones, in every row."""

    def occurs(bounds: Bounds) -> bool:
        found = test(bounds.reference.logits)
        others = np.isfinite(bounds.reference.logits) | found
        return bool(((found.sum(axis=1) == 1) & others.all(axis=1)).any())

    @event(slug, statement, occurs)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        for top_k in (2, 1):
            for case in table_cases(capabilities, _POSITIVE, top_k=top_k):
                yield _with_gate_at(case, [False, False, True, False], value)


_POSITIVE = ((1.0, 0.25, 0.5, 2.0), (0.5, 1.5, 1.0, 0.25))


def _with_gate_at(case: Case, experts: npt.ArrayLike, value: float) -> Case:
    """Return ``case`` with a gate that makes the logits of ``experts`` be ``value``.

    Where E must be a multiple of some number, further experts are treated like the last.
    """
    inputs = case.inputs
    chosen = np.pad(np.asarray(experts), (0, inputs.num_experts), mode="edge")
    chosen = chosen[: inputs.num_experts]
    gate = np.array(inputs.gate_weight)
    gate[chosen, 0] = value
    changes = {"gate_weight": gate}
    if inputs.logits is not None:
        changes["logits"] = np.where(chosen, np.float32(value), inputs.logits)
    return with_inputs(case, **changes)


_one_column("nan-logit", "one NaN among the logits of a token", np.nan, np.isnan)
_one_column("plus-infinity", "one logit of +inf among finite ones", np.inf, np.isposinf)
