"""Constructed cases: the smallest call, under a backend's claims, that shows one thing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict, TypeVar, Unpack

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.calls.memory import with_changes
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.generators import axes
from moe_routing.conformance.generators.inputs import in_rows, with_strides
from moe_routing.conformance.generators.scenes import Scene, scenes_for
from moe_routing.implementations import Capabilities, Claim
from moe_routing.reference import RouterConfig, RouterInputs, check_inputs

_PARTS = ("gate_bias", "gate_delta", "expert_table")

OneCase = TypeVar("OneCase", bound=AnyCase)

Wants = Mapping[str, Any]
"""Choices to make, by the names in ``axes``: a value, or a test that the choice must pass."""


class Arrays(TypedDict, total=False):
    """Optional inputs, by field name."""

    selection_bias: npt.ArrayLike
    gate_bias: npt.ArrayLike
    gate_delta: npt.ArrayLike
    per_expert_scale: npt.ArrayLike
    hidden_scale: npt.ArrayLike
    expert_table: npt.ArrayLike
    token_ids: npt.ArrayLike


class _Unreachable(Exception):
    """The claim has no value that is wanted."""


def table_cases(
    capabilities: Capabilities,
    logits: npt.ArrayLike,
    *,
    top_k: int,
    wants: Wants | None = None,
    groups: tuple[int, int] | None = None,
    layout: str = "rows",
    exactly: bool = False,
    **arrays: Unpack[Arrays],
) -> Iterator[Case]:
    """Yield a case with these ``logits [T, E]``, through an identity gate, for each claim.

    Every axis takes its plainest claimed value unless ``wants`` says otherwise;
    ``groups=(count, kept)`` sets the groups, ``layout`` names the matrix to lie transposed,
    with everything else spaced out, and ``arrays`` gives optional inputs.
    Claims that do not cover all of it are skipped; limits cut tokens and experts off,
    and the caller has to check that the rest still shows what it needs. With ``exactly``, only
    tokens are cut off, and a claim of other E and K is skipped. Errors: ``ValueError`` where
    ``wants`` names a choice that is never made.
    """
    axes.require_choices("wants", wants or {})
    table = np.asarray(logits, dtype=np.float32)
    given = {name: np.asarray(values) for name, values in arrays.items()}
    scene = Scene(logits=table, top_k=top_k, groups=groups, arrays=given)
    limits = capabilities.limits
    for claim in capabilities.claims:
        fitting = scenes_for(scene, claim, capabilities, exactly=exactly)
        for fitted in (each for each in fitting if not limits.router_refusals(*each.sizes)):
            for dtype in capabilities.dtypes:
                try:
                    yield _case(capabilities, claim, dtype, fitted, wants, layout)
                except (_Unreachable, ValueError):
                    continue


def _case(
    capabilities: Capabilities,
    claim: Claim,
    dtype: str,
    scene: Scene,
    wants: Wants | None,
    layout: str,
) -> Case:
    table, arrays = scene.logits, scene.arrays
    fixed = {"num_experts": table.shape[1], "top_k": scene.top_k, **(wants or {})}
    if scene.groups is not None:
        count, kept = scene.groups
        fixed |= {"groups.count": count, "groups.kept": kept}
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
    inputs = in_rows(inputs) if layout == "rows" else with_strides(inputs, transposed=layout)
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
    types: dict[str, Any] = {"dtype": dtype, "gate_dtype": parts.gate_dtype}
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
        return RouterInputs.from_logits(table, **types, **arrays)
    gate = np.eye(experts, dtype=np.float32)
    return RouterInputs(hidden=table, gate_weight=gate, **types, **arrays)


def _scripted(fixed: Wants) -> axes.Choose:
    def choose(name: str, offered: Sequence[Any]) -> Any:
        if name not in fixed:
            return _plainest(name, offered)
        want = fixed[name]
        if not callable(want):
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


def with_inputs(case: OneCase, **changes: Any) -> OneCase:
    """Return a case of any kind with inputs replaced, each array laid out like the one before it.

    Errors: ``ValueError`` as the inputs themselves.
    """
    return replace(case, inputs=with_changes(case.inputs, **changes))


def take_tokens(case: Case, tokens: Sequence[int] | npt.NDArray[np.int64]) -> Case:
    """Return ``case`` with only these rows, in this order."""
    inputs, rows = case.inputs, np.asarray(tokens, dtype=np.int64)
    changes = {
        name: getattr(inputs, name)[rows]
        for name in ("hidden", "token_ids", "logits", *getattr(inputs, "by_token", ()))
        if getattr(inputs, name, None) is not None
    }
    return with_inputs(case, **changes)
