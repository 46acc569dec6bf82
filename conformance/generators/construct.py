"""Constructed cases: the smallest call, under a backend's claims, that shows one thing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.case import Case
from moe_routing.conformance.generators import axes
from moe_routing.conformance.generators.inputs import with_strides
from moe_routing.implementations import Capabilities, Claim
from moe_routing.reference import RouterConfig, RouterInputs, check_inputs

_PARTS = ("gate_bias", "gate_delta", "expert_table")

Wants = Mapping[str, Any]
"""Choices to make, by the names in ``axes``: a value, or a test that the choice must pass."""


class _Unreachable(Exception):
    """The claim offers nothing that is wanted."""


def table_cases(
    capabilities: Capabilities,
    logits: npt.ArrayLike,
    *,
    top_k: int,
    wants: Wants | None = None,
    groups: tuple[int, int] | None = None,
    layout: str = "rows",
    **arrays: npt.ArrayLike,
) -> Iterator[Case]:
    """Yield a case with these ``logits [T, E]``, through an identity gate, for each claim.

    Every axis takes its plainest claimed value unless ``wants`` says otherwise;
    ``groups=(count, kept)`` asks for groups, ``layout`` names the matrix to lie transposed,
    with everything else spaced out, and ``arrays`` gives optional inputs by field name
    (``selection_bias``, ``gate_delta`` ...).
    Claims that cannot have all of it are passed over; limits cut tokens and experts off,
    and whoever asks has to see whether the rest still shows what he wants.
    """
    limits, step = capabilities.limits, capabilities.limits.experts_multiple_of
    table = np.asarray(logits, dtype=np.float32)[: limits.max_tokens]
    if limits.max_experts and groups is None:
        table, arrays = _trimmed(table, arrays, limits.max_experts)
    if table.shape[1] % step:
        table, arrays = _padded(table, arrays, groups[0] if groups else 1, step)
    for claim in capabilities.claims:
        for dtype in capabilities.dtypes:
            try:
                yield _case(capabilities, claim, dtype, table, top_k, wants, groups, layout, arrays)
            except (_Unreachable, ValueError):
                continue


def _case(
    capabilities: Capabilities,
    claim: Claim,
    dtype: str,
    table: npt.NDArray[np.float32],
    top_k: int,
    wants: Wants | None,
    groups: tuple[int, int] | None,
    layout: str,
    arrays: Mapping[str, npt.ArrayLike],
) -> Case:
    fixed = {"num_experts": table.shape[1], "top_k": top_k, **(wants or {})}
    if groups is not None:
        fixed |= {"groups.count": groups[0], "groups.kept": groups[1]}
        fixed.setdefault("groups", lambda rule: rule is not None)
    if "selection_bias" in arrays:
        fixed.setdefault("selection_bias", lambda place: place != "none")
    if layout != "rows" and "strided" not in capabilities.layouts:
        raise _Unreachable
    wanted = {*arrays} | {name for name in _PARTS if False not in getattr(claim, name)}
    fixed.setdefault(
        "optional arrays",
        lambda parts: all((name in parts) == (name in wanted) for name in _PARTS),
    )
    choose = _scripted(fixed)
    config = axes.choose_config(choose, claim, capabilities)
    parts = axes.choose_parts(choose, claim, config, capabilities.takes)
    inputs = _inputs(config, parts, table, dtype, capabilities.takes, dict(arrays))
    if layout != "rows":
        inputs = with_strides(inputs, transposed=layout)
    check_inputs(config, inputs)
    if not capabilities.admits(config, inputs):
        raise _Unreachable
    return Case(config=config, inputs=inputs, recipe="constructed")


def _inputs(
    config: RouterConfig,
    parts: axes.Parts,
    table: npt.NDArray[np.float32],
    dtype: str,
    takes: str,
    arrays: dict[str, Any],
) -> RouterInputs:
    experts = config.num_experts
    if parts.selection_bias != "none":
        arrays.setdefault("selection_bias", np.zeros(experts, np.float32))
        arrays["selection_bias_on"] = parts.selection_bias
    if parts.per_expert_scale:
        arrays.setdefault("per_expert_scale", np.ones(experts, np.float32))
    if config.input_norm is not None:
        arrays.setdefault("hidden_scale", np.ones(experts, np.float32))
    if parts.gate_bias:
        arrays.setdefault("gate_bias", np.zeros(experts, np.float32))
    if parts.gate_delta:
        arrays.setdefault("gate_delta", np.zeros((experts, experts), np.float32))
    if parts.expert_table:
        slots = np.arange(max(1, len(table)))[:, None] + np.arange(config.top_k)
        arrays.setdefault("expert_table", slots % experts)
        arrays.setdefault("token_ids", np.arange(len(table)))
    if takes == "logits" or np.isneginf(table).any():
        return RouterInputs.from_logits(table, dtype=dtype, **arrays)
    gate = np.eye(experts, dtype=np.float32)
    return RouterInputs(hidden=table, gate_weight=gate, dtype=dtype, **arrays)


def _trimmed(
    table: npt.NDArray[np.float32], arrays: Mapping[str, npt.ArrayLike], most: int
) -> tuple[npt.NDArray[np.float32], dict[str, npt.ArrayLike]]:
    """Drop the experts from ``most`` on, and what the arrays say of them."""
    size = table.shape[1]
    per_expert = {name: np.asarray(values) for name, values in arrays.items()}
    smaller = {
        name: values[tuple(slice(most if n == size else None) for n in values.shape)]
        for name, values in per_expert.items()
    }
    return table[:, :most], smaller


def fitting_experts(capabilities: Capabilities, wanted: int) -> int:
    """Return ``wanted``, or the nearest number of experts above it, or below, within limits."""
    step = capabilities.limits.experts_multiple_of
    most = capabilities.limits.max_experts or wanted + step
    return max(step, min(-(-wanted // step) * step, most // step * step))


def _padded(
    table: npt.NDArray[np.float32],
    arrays: Mapping[str, npt.ArrayLike],
    count: int,
    step: int,
) -> tuple[npt.NDArray[np.float32], dict[str, npt.ArrayLike]]:
    """Add losing experts to every group until ``step`` divides E; arrays grow alike."""
    size = table.shape[1] // count
    wide = next(n for n in range(size, size + step + 1) if count * n % step == 0)
    homes = (np.arange(count)[:, None] * wide + np.arange(size)).ravel()
    low = np.nanmin(np.where(np.isfinite(table), table, np.nan), initial=0.0) - 1.0

    def grown(values: npt.ArrayLike, fill: float, *axes_: int) -> npt.NDArray[np.float32]:
        values = np.asarray(values, dtype=np.float32)
        shape = [count * wide if axis in axes_ else n for axis, n in enumerate(values.shape)]
        result = np.full(shape, fill, dtype=np.float32)
        result[np.ix_(*(homes if a in axes_ else range(n) for a, n in enumerate(values.shape)))] = (
            values
        )
        return result

    larger = {
        name: grown(values, 0.0, 0, 1)
        if name == "gate_delta"
        else grown(values, 1.0 if name == "per_expert_scale" else float(np.min(values)), 0)
        for name, values in arrays.items()
    }
    return grown(table, low, 1), larger


def _scripted(fixed: Wants) -> axes.Choose:
    def choose(name: str, offered: Sequence[Any]) -> Any:
        if name not in fixed:
            return _plainest(name, offered)
        want = fixed[name]
        if not isinstance(want, Callable):
            if name not in _OPEN and want not in offered:
                raise _Unreachable
            return want
        for value in offered:
            if want(value):
                return value
        raise _Unreachable

    return choose


_OPEN = ("num_experts", "top_k", "groups.count", "groups.kept")
"""The sizes: what a strategy offers are examples, not limits; capabilities.admits decides."""


def _plainest(name: str, offered: Sequence[Any]) -> Any:
    if not offered:
        raise _Unreachable
    return None if name == "groups" and None in offered else offered[0]


def with_config(case: Case, **changes: Any) -> Case:
    """Return ``case`` with configuration fields replaced, unchecked."""
    return replace(case, config=RouterConfig.unchecked(**{**vars(case.config), **changes}))


def with_inputs(case: Case, **changes: Any) -> Case:
    """Return ``case`` with input arrays replaced. Errors: ``ValueError`` as ``RouterInputs``."""
    return replace(case, inputs=replace(case.inputs, **changes))


def take_tokens(case: Case, tokens: Sequence[int] | npt.NDArray[np.int64]) -> Case:
    """Return ``case`` with only these rows, in this order."""
    inputs, rows = case.inputs, np.asarray(tokens, dtype=np.int64)
    changes = {
        name: getattr(inputs, name)[rows]
        for name in ("hidden", "token_ids", "logits")
        if getattr(inputs, name) is not None
    }
    return replace(case, inputs=replace(inputs, **changes))
