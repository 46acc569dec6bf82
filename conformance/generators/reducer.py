"""The reducer: from a case that fails to the smallest one that fails alike.

Deterministic, and bounded by calls, never by time. Each pass proposes smaller cases,
plainest first; a proposal that still fails becomes the case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.generators.construct import take_tokens
from moe_routing.reference import Groups, RouterConfig, RouterInputs
from moe_routing.reference.formats import INPUT_FORMATS

BUDGET = 400
"""The most calls of the failing clause that one reduction may make."""

_PER_EXPERT = ("gate_weight", "gate_bias", "selection_bias", "gate_delta", "per_expert_scale")
_OPTIONAL = ("gate_delta", "gate_bias", "selection_bias", "per_expert_scale", "hidden_scale")
_VALUES = ("hidden", "gate_weight", "selection_bias", "gate_bias", "gate_delta", "per_expert_scale")

Reduction = Callable[[Any], Iterator[Any]]
"""Proposes smaller cases than the one it is given, the smallest first."""

OneCase = TypeVar("OneCase", bound=AnyCase)


def reduce_case(
    case: OneCase,
    reductions: Sequence[Reduction],
    still_fails: Callable[[OneCase], bool],
    *,
    budget: int = BUDGET,
) -> OneCase:
    """Return the smallest case found for which ``still_fails`` holds, as it does for ``case``.

    ``still_fails`` is called ``budget`` times at most.
    """
    calls = 0
    progress = True
    while progress and calls < budget:
        progress = False
        for proposals in reductions:
            found = True
            while found and calls < budget:
                found = False
                for smaller in proposals(case):
                    calls += 1
                    if still_fails(smaller):
                        case, found, progress = smaller, True, True
                        break
                    if calls >= budget:
                        break
    return case


def _attempt(make: Callable[[], Case]) -> Iterator[Case]:
    try:
        yield make()
    except ValueError:
        return


def _tokens(case: Case) -> Iterator[Case]:
    """Keep half of the tokens, then all but one."""
    count = case.inputs.num_tokens
    for kept in subsets(count):
        yield from _attempt(lambda kept=kept: take_tokens(case, kept))


def subsets(count: int) -> Iterator[np.ndarray]:
    """Yield halves, quarters and, of small counts, all but one of ``range(count)``."""
    everything = np.arange(count)
    if count > 3:
        for start, stop in ((0, count // 2), (count // 2, count)):
            yield everything[start:stop]
        for start in range(0, count, max(1, count // 4)):
            yield np.delete(everything, slice(start, start + max(1, count // 4)))
    if 1 < count <= 12:
        for i in range(count):
            yield np.delete(everything, i)


def _experts(case: Case) -> Iterator[Case]:
    """Drop whole groups, one expert of every group, or experts.

    Experts go alone or, where they may have been selected, each with a slot: at a large K
    the cut would move, and the failure with it.
    """
    config, groups = case.config, case.config.groups
    if groups is None:
        for kept in subsets(config.num_experts):
            yield from _attempt(lambda kept=kept: _with_experts(case, kept, None))
            fewer = config.top_k - (config.num_experts - len(kept))
            if 1 <= fewer < min(config.top_k, len(kept)) and case.inputs.expert_table is None:
                yield from _attempt(
                    lambda kept=kept, k=fewer: _with_experts(
                        replace(case, config=replace(config, top_k=k)), kept, None
                    )
                )
        return
    grid = np.arange(config.num_experts).reshape(groups.count, -1)
    for kept in subsets(groups.count):
        fewer = len(kept), min(groups.kept, len(kept))
        for count, keep in (fewer, (fewer[0], max(1, fewer[1] - 1))):
            smaller = lambda c=count, k=keep: replace(groups, count=c, kept=k)  # noqa: E731
            yield from _attempt(
                lambda kept=kept, smaller=smaller: _with_experts(
                    case, grid[kept].ravel(), smaller()
                )
            )
    for kept in subsets(grid.shape[1]):
        yield from _attempt(lambda kept=kept: _with_experts(case, grid[:, kept].ravel(), groups))


def _with_experts(case: Case, kept: np.ndarray, groups: Groups | None) -> Case:
    """Keep these experts; an identity gate loses the hidden columns that go with the others."""
    inputs, config = case.inputs, case.config
    changes = {
        name: getattr(inputs, name)[kept]
        for name in _PER_EXPERT
        if getattr(inputs, name) is not None
    }
    square = inputs.hidden_size == inputs.num_experts
    if square and (inputs.gate_weight == np.eye(inputs.num_experts)).all():
        changes |= {name: array[:, kept] for name, array in _wide(inputs) if name != "gate_weight"}
        changes["gate_weight"] = np.eye(len(kept), dtype=np.float32)
        if inputs.gate_delta is not None:
            changes["gate_delta"] = inputs.gate_delta[kept][:, kept]
        if inputs.hidden_scale is not None:
            changes["hidden_scale"] = inputs.hidden_scale[kept]
    if inputs.logits is not None:
        changes["logits"] = inputs.logits[:, kept]
    if inputs.expert_table is not None:
        changes["expert_table"] = inputs.expert_table % len(kept)
    top_k = config.top_k if inputs.expert_table is not None else min(config.top_k, len(kept))
    smaller = replace(config, num_experts=len(kept), top_k=top_k, groups=groups)
    return replace(case, config=smaller, inputs=replace(inputs, **changes))


def _wide(inputs: RouterInputs) -> list[tuple[str, np.ndarray]]:
    names = ("hidden", "gate_weight", "gate_delta")
    return [(name, getattr(inputs, name)) for name in names if getattr(inputs, name) is not None]


def _top_k(case: Case) -> Iterator[Case]:
    if case.inputs.expert_table is None:
        for k in (1, case.config.top_k // 2, case.config.top_k - 1):
            if 1 <= k < case.config.top_k:
                yield from _attempt(lambda k=k: replace(case, config=replace(case.config, top_k=k)))


def _hidden(case: Case) -> Iterator[Case]:
    """Drop hidden columns, where the logits are not given."""
    inputs = case.inputs
    if inputs.logits is not None:
        return
    for kept in subsets(inputs.hidden_size):
        changes = {name: array[:, kept] for name, array in _wide(inputs)}
        if inputs.hidden_scale is not None:
            changes["hidden_scale"] = inputs.hidden_scale[kept]
        yield replace(case, inputs=replace(inputs, **changes))


def _config(case: Case) -> Iterator[Case]:
    """Take each field back to its default."""
    plain = {
        f.name: f.default for f in fields(RouterConfig) if f.name not in ("num_experts", "top_k")
    }
    for name, default in plain.items():
        if name == "input_norm" and case.inputs.hidden_scale is not None:
            continue  # the scale goes first
        if getattr(case.config, name) != default:
            yield from _attempt(
                lambda n=name, d=default: replace(case, config=replace(case.config, **{n: d}))
            )


def _arrays(case: Case) -> Iterator[Case]:
    """Leave out optional arrays, lay inputs out in rows, store them in float32."""
    inputs = case.inputs
    for name in _OPTIONAL:
        if name == "gate_bias" and inputs.logits is not None:
            continue  # it carries the given logits of -inf
        if getattr(inputs, name) is not None:
            yield replace(case, inputs=replace(inputs, **{name: None}))
    rows = {name: np.ascontiguousarray(array) for name, array in inputs.arrays().items()}
    if any(not array.flags.c_contiguous for array in inputs.arrays().values()):
        yield replace(case, inputs=replace(inputs, **rows))
    if inputs.dtype != "float32":
        yield replace(case, inputs=replace(inputs, dtype="float32"))


def _numbers(case: Case) -> Iterator[Case]:
    """Make values small integers, quarters, zeros: whole arrays first, then one at a time."""
    inputs = case.inputs
    if inputs.logits is not None:
        return
    form = INPUT_FORMATS[inputs.dtype]
    for name in _VALUES:
        array = getattr(inputs, name)
        if array is None:
            continue
        with np.errstate(all="ignore"):
            simpler = (np.sign(array), np.rint(array), np.rint(array * 4.0) / 4.0)
        for values in simpler:
            if form.represents(values).all() and not _equal(values, array):
                yield replace(case, inputs=replace(inputs, **{name: values.astype(np.float32)}))
        for index in np.argwhere(array != 0)[:24] if array.size <= 64 else ():
            values = np.array(array)
            values[tuple(index)] = 0.0
            yield replace(case, inputs=replace(inputs, **{name: values}))


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.array_equal(a, b, equal_nan=True))


ROUTING_REDUCTIONS: tuple[Reduction, ...] = (
    *(_tokens, _experts, _top_k, _hidden, _config, _arrays, _numbers),
)
"""How a routing case is made smaller, in the order in which that is tried."""
