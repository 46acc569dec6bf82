"""Reductions of a routing case: fewer tokens, experts, columns, settings and arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.generators.construct import take_tokens, with_inputs
from moe_routing.conformance.generators.inputs import in_rows
from moe_routing.conformance.generators.plainer import nearer, plainer, with_logits
from moe_routing.conformance.generators.reducer import Reduction, attempt, subsets
from moe_routing.reference import Groups, RouterConfig
from moe_routing.reference.formats import Ids

_PER_EXPERT = ("gate_weight", "gate_bias", "selection_bias", "gate_delta", "per_expert_scale")
_OPTIONAL = ("gate_delta", "gate_bias", "selection_bias", "per_expert_scale", "hidden_scale")
_WIDE = ("hidden", "gate_weight", "gate_delta")

Fewer = tuple[Ids, dict[str, Any]]
"""The experts to keep, and what else changes in the configuration."""


def _tokens(case: Case) -> Iterator[Case]:
    """Keep half of the tokens, then all but one."""
    for kept in subsets(case.inputs.num_tokens):
        fewer = take_tokens(case, kept)
        logits, wide = fewer.inputs.logits, fewer.inputs.gate_dtype == "float32"
        yield fewer if logits is None or not wide else with_logits(fewer, logits)


def _experts(case: Case) -> Iterator[Case]:
    """Drop whole groups, one expert of every group, or experts."""
    groups = case.config.groups
    fewer = _fewer_alone(case) if groups is None else _fewer_in_groups(case.config, groups)
    for kept, changes in fewer:
        yield from attempt(with_experts, case, kept, **changes)


def _fewer_alone(case: Case) -> Iterator[Fewer]:
    """Yield experts to keep; fewer of them go alone or, where they may be, with their slots.

    At a large K the cut would move, and the failure with it.
    """
    experts, top_k = case.config.num_experts, case.config.top_k
    for kept in subsets(experts):
        yield kept, {}
        fewer = top_k - (experts - len(kept))
        if 1 <= fewer < min(top_k, len(kept)) and case.inputs.expert_table is None:
            yield kept, {"top_k": fewer}


def _fewer_in_groups(config: RouterConfig, groups: Groups) -> Iterator[Fewer]:
    """Yield whole groups to keep, of which as many or one fewer are kept, then smaller groups.

    Unequal groups, which a backend has to reject, have none to drop.
    """
    if config.num_experts % groups.count:
        return
    grid = np.arange(config.num_experts).reshape(groups.count, -1)
    for kept in subsets(groups.count):
        most = min(groups.kept, len(kept))
        if groups.from_each:
            top_k = config.top_k // groups.count * len(kept)
            fewer = replace(groups, count=len(kept), kept=len(kept))
            yield grid[kept].ravel(), {"groups": fewer, "top_k": top_k}
            continue
        for keep in (most, max(1, most - 1)):
            yield grid[kept].ravel(), {"groups": replace(groups, count=len(kept), kept=keep)}
    for kept in subsets(grid.shape[1]):
        yield grid[:, kept].ravel(), {}


def with_experts(case: Case, kept: Ids, **config: Any) -> Case:
    """Keep these experts; an identity gate loses the hidden columns that go with the others."""
    inputs = case.inputs
    arrays = {name: each[kept] for name, each in inputs.arrays().items() if name in _PER_EXPERT}
    if _has_identity_gate(case):
        arrays |= columns(case, kept) | {"gate_weight": np.eye(len(kept), dtype=np.float32)}
        if inputs.gate_delta is not None:
            arrays["gate_delta"] = inputs.gate_delta[kept][:, kept]
    for name in ("logits", "cotangent"):
        if (table := getattr(inputs, name, None)) is not None:
            arrays[name] = table[:, kept]
    if (more := getattr(inputs, "by_expert", None)) is not None:
        arrays |= more(kept)
    if inputs.expert_table is not None:
        arrays["expert_table"] = inputs.expert_table % len(kept)
    else:
        config = {"top_k": min(case.config.top_k, len(kept)), **config}
    return with_inputs(_with_config(case, num_experts=len(kept), **config), **arrays)


def _has_identity_gate(case: Case) -> bool:
    gate = case.inputs.gate_weight
    return gate.shape[0] == gate.shape[1] and bool((gate == np.eye(len(gate))).all())


def columns(case: Case, kept: Ids) -> dict[str, Any]:
    """Return the arrays that have hidden columns, with only these."""
    arrays = case.inputs.arrays()
    fewer = {name: arrays[name][:, kept] for name in _WIDE if name in arrays}
    if case.inputs.hidden_scale is not None:
        fewer["hidden_scale"] = case.inputs.hidden_scale[kept]
    return fewer


def _top_k(case: Case) -> Iterator[Case]:
    if case.inputs.expert_table is None:
        for k in (1, case.config.top_k // 2, case.config.top_k - 1):
            if 1 <= k < case.config.top_k:
                yield from attempt(_with_config, case, top_k=k)


def _hidden(case: Case) -> Iterator[Case]:
    """Drop hidden columns, where the logits are not given."""
    if case.inputs.logits is None:
        for kept in subsets(case.inputs.hidden_size):
            yield with_inputs(case, **columns(case, kept))


def _config(case: Case) -> Iterator[Case]:
    """Take each field back to its default."""
    for field in fields(RouterConfig):
        if field.name in ("num_experts", "top_k"):
            continue
        if field.name == "input_norm" and case.inputs.hidden_scale is not None:
            continue  # the scale goes first
        if getattr(case.config, field.name) != field.default:
            yield from attempt(_with_config, case, **{field.name: field.default})


def _with_config(case: Case, **changes: Any) -> Case:
    return replace(case, config=replace(case.config, **changes))


def _arrays(case: Case) -> Iterator[Case]:
    """Leave out optional arrays, lay inputs out in rows, store them in float32."""
    inputs = case.inputs
    for name in _OPTIONAL:
        if name == "gate_bias" and inputs.logits is not None:
            continue  # it carries the given logits of -inf
        if getattr(inputs, name) is not None:
            yield with_inputs(case, **{name: None})
    yield from _rows(case)
    if inputs.dtype != "float32":
        yield with_inputs(case, dtype="float32")
    if inputs.gate_dtype != "input":
        yield from attempt(with_inputs, case, gate_dtype="input")


def _rows(case: Case) -> Iterator[Case]:
    """Lay every array out in rows, or one: the only reduction that changes how arrays lie."""
    inputs, rows = case.inputs, in_rows(case.inputs)
    if rows is not inputs:
        yield replace(case, inputs=rows)
    for name, array in inputs.arrays().items():
        if not array.flags.c_contiguous:
            one: dict[str, Any] = {name: getattr(rows, name)}
            yield replace(case, inputs=replace(inputs, **one))


ROUTING_REDUCTIONS: tuple[Reduction, ...] = (
    *(nearer, _tokens, _experts, _top_k, _hidden, _config, _arrays, plainer),
)
"""How a routing case is made smaller, in the order in which that is tried."""
