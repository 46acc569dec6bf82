"""Calls that drop what exceeds a capacity."""

from __future__ import annotations

from moe_routing.conformance.calls.capacity import CapacityCase
from moe_routing.conformance.cases.kinds.kind import Kind
from moe_routing.conformance.generators.capacity import CAPACITY_REDUCTIONS, CAPACITY_SIZES
from moe_routing.conformance.trial.capacity import CapacityTrial, demand_of
from moe_routing.implementations.permutes import ROUTES_AXES
from moe_routing.reference import CapacityConfig, Routes

CAPACITY = Kind(
    case=CapacityCase,
    config=CapacityConfig,
    inputs=Routes,
    words=(),
    integers=("expert_ids",),
    methods=("drop",),
    trial=CapacityTrial,
    facts=lambda case, numerics: demand_of(case),
    reductions=CAPACITY_REDUCTIONS,
    sizes=CAPACITY_SIZES,
    claimed=lambda case, capabilities: not capabilities.drops.refusals(case.config, case.inputs),
    refusals=lambda case, capabilities: capabilities.drops.refusals(case.config, case.inputs),
    axes=ROUTES_AXES,
    compared=("order", "survivors", "share", "rounding", "zero", "tokens", "absent"),
)
