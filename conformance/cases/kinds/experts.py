"""Calls of experts."""

from __future__ import annotations

from moe_routing.conformance.calls.experts import ExpertsCase
from moe_routing.conformance.cases.kinds.kind import Kind
from moe_routing.conformance.generators.experts_smaller import EXPERTS_REDUCTIONS, EXPERTS_SIZES
from moe_routing.conformance.trial.experts import ExpertsTrial, layer_of
from moe_routing.implementations import Capabilities
from moe_routing.implementations.computes import EXPERTS_AXES
from moe_routing.reference import ExpertsConfig, ExpertsInputs


def _experts_refused(case: ExpertsCase, capabilities: Capabilities) -> list[str]:
    """Return what capabilities lack for a call of experts, in phrases."""
    found = capabilities.computes.refusals(case.config, case.inputs)
    return capabilities.storage_refusals(case.inputs) + found


EXPERTS = Kind(
    case=ExpertsCase,
    config=ExpertsConfig,
    inputs=ExpertsInputs,
    integers=("expert_ids",),
    methods=("experts",),
    trial=ExpertsTrial,
    facts=lambda case, numerics: layer_of(case),
    reductions=EXPERTS_REDUCTIONS,
    sizes=EXPERTS_SIZES,
    claimed=lambda case, capabilities: not _experts_refused(case, capabilities),
    refusals=_experts_refused,
    axes=EXPERTS_AXES,
    compared=("activation", "gated", "weight_on", "dtype", "tokens", *EXPERTS_AXES),
)
