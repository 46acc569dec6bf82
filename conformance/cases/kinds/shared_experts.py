"""Calls of shared experts."""

from __future__ import annotations

from moe_routing.conformance.calls.shared_experts import SharedCase
from moe_routing.conformance.cases.kinds.kind import Kind
from moe_routing.conformance.generators.shared import SHARED_REDUCTIONS
from moe_routing.conformance.generators.sizes import SHARED_SIZES
from moe_routing.conformance.trial.shared_experts import SharedTrial
from moe_routing.reference import SharedExpertConfig, SharedExpertInputs

SHARED_EXPERTS = Kind(
    case=SharedCase,
    config=SharedExpertConfig,
    inputs=SharedExpertInputs,
    methods=("shared_experts",),
    trial=SharedTrial,
    reductions=SHARED_REDUCTIONS,
    sizes=SHARED_SIZES,
    claimed=lambda case, capabilities: not capabilities.storage_refusals(case.inputs),
    compared=("kind", "gated", "dtype", "tokens"),
)
