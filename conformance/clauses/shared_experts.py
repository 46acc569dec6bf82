"""Clauses of the chapter on shared experts (docs/spec/shared-experts.md)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from moe_routing.conformance.clauses.registry import Check, clause
from moe_routing.conformance.clauses.relations import wrote_to_inputs
from moe_routing.conformance.explain.failure import Failure, at, span
from moe_routing.conformance.explain.numbers import show
from moe_routing.conformance.generators.choices import choose_shared_case
from moe_routing.conformance.generators.seeds import Seeded
from moe_routing.conformance.judge.shared_experts import contribution_bounds
from moe_routing.conformance.trial.boundary import Malformed, to_numpy
from moe_routing.conformance.trial.shared_experts import SharedTrial
from moe_routing.implementations import Capabilities
from moe_routing.reference import shared_contribution

if TYPE_CHECKING:
    from moe_routing.conformance.calls.shared_experts import SharedCase


def _shared(
    id: str,
    why: str,
    *,
    kind: str,
    gated: bool,
    events: tuple[str, ...],
    rules: tuple[str, ...],
    bugs: tuple[str, ...],
) -> Callable[[Check], Check]:
    return clause(
        id,
        "MUST",
        why=why,
        rules=rules,
        bugs=bugs,
        method="shared_experts",
        events=events,
        without_tokens=True,
        strategy=lambda capabilities: _calls(capabilities, kind, gated),
    )


def _calls(capabilities: Capabilities, kind: str, gated: bool) -> Seeded[SharedCase]:
    dtypes, kinds = capabilities.dtypes, (kind,)
    return Seeded(partial(choose_shared_case, dtypes=dtypes, kinds=kinds, gated=(gated,)))


@_shared(
    "shared-experts.singular",
    "Qwen2-MoE keeps its shared expert as shared_expert.",
    kind="singular",
    gated=False,
    events=("shared-singular",),
    rules=("SHA-1", "SHA-3", "SHA-4", "SHA-5", "SHA-7"),
    bugs=("M58", "M59", "M61"),
)
def singular(trial: SharedTrial) -> Failure | None:
    """A shared expert found as shared_expert contributes its whole output, once."""
    return _contributes(trial)


@_shared(
    "shared-experts.plural",
    "DeepSeek and GLM keep theirs as shared_experts, one MLP as wide as all of them.",
    kind="plural",
    gated=False,
    events=("shared-plural", "shared-plural-of-two", "shared-wide"),
    rules=("SHA-1", "SHA-3", "SHA-4", "SHA-5", "SHA-7"),
    bugs=("M58", "M59", "M61"),
)
def plural(trial: SharedTrial) -> Failure | None:
    """Shared experts found as shared_experts contribute their whole output, once."""
    return _contributes(trial)


@_shared(
    "shared-experts.mlp",
    "HunYuan keeps its shared expert as shared_mlp.",
    kind="mlp",
    gated=False,
    events=("shared-mlp",),
    rules=("SHA-1", "SHA-3", "SHA-4", "SHA-5", "SHA-7"),
    bugs=("M58", "M59", "M61"),
)
def mlp(trial: SharedTrial) -> Failure | None:
    """A shared expert found as shared_mlp contributes its whole output, once."""
    return _contributes(trial)


@_shared(
    "shared-experts.absent",
    "A block without a shared expert must add nothing, and not fail.",
    kind="none",
    gated=False,
    events=("shared-absent",),
    rules=("SHA-6", "SHA-5", "SHA-7"),
    bugs=("M58",),
)
def absent(trial: SharedTrial) -> Failure | None:
    """Without a shared expert the contribution is None or zero."""
    return wrote_to_inputs(trial) if trial.native is None else _contributes(trial)


@_shared(
    "shared-experts.gate-applied-once",
    "Without its sigmoid gate a shared expert counts double or more; a gate logit of 0 must "
    "give one half.",
    kind="singular",
    gated=True,
    events=("shared-gate-half-open",),
    rules=("SHA-1", "SHA-2", "SHA-4", "SHA-5", "SHA-7"),
    bugs=("M57", "M61"),
)
def gate_applied_once(trial: SharedTrial) -> Failure | None:
    """A gated shared expert contributes sigmoid(gate x) times its output, once."""
    return _contributes(trial)


def _contributes(trial: SharedTrial) -> Failure | None:
    native: Any = trial.native
    if (failure := wrote_to_inputs(trial)) is not None:
        return failure
    if native is None:
        return Failure(stage="layout", summary="returned None, but there is a shared expert")
    expected = shared_contribution(trial.case.config, trial.case.inputs)
    output = to_numpy("shared_experts", native)
    if output.dtype.kind != "f":
        raise Malformed(f"shared_experts are {output.dtype}, but should be floating point")
    if output.shape != expected.shape:
        raise Malformed(f"shared_experts has shape {output.shape}, but should be {expected.shape}")
    output = output.astype(np.float64)
    bounds = contribution_bounds(trial.case.config, trial.case.inputs)
    fine = output == 0.0 if trial.case.config.kind == "none" else bounds.contains(output)
    if fine.all():
        return None
    t, h = np.argwhere(~fine)[0]
    return Failure(
        stage="weights",
        token=int(t),
        summary=(
            f"{at('output', t, h)}={show(output[t, h])}, but should be in {span(bounds, t, h)}"
        ),
        details=(f"{trial.case.config} in {trial.case.inputs.dtype}, {trial.case.size}",),
    )
