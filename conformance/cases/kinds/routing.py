"""Calls of a router."""

from __future__ import annotations

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.cases.kinds.kind import Kind
from moe_routing.conformance.generators.reductions import ROUTING_REDUCTIONS
from moe_routing.conformance.generators.sizes import ROUTING_SIZES
from moe_routing.conformance.judge import Bounds
from moe_routing.conformance.trial.trial import Trial
from moe_routing.implementations.claims import INPUT_AXES
from moe_routing.reference import RouterConfig, RouterInputs

ROUTING = Kind(
    case=Case,
    config=RouterConfig.unchecked,
    inputs=RouterInputs,
    words=("dtype", "selection_bias_on", "gate_dtype"),
    integers=("expert_table", "token_ids"),
    methods=("route", "dispatch"),
    trial=Trial,
    facts=lambda case, numerics: Bounds(case.config, case.inputs, numerics),
    reductions=ROUTING_REDUCTIONS,
    sizes=ROUTING_SIZES,
    defined=lambda bounds: bounds.all_defined,
    claimed=lambda case, capabilities: capabilities.admits(case.config, case.inputs),
    refusals=lambda case, capabilities: capabilities.refusals(case.config, case.inputs),
    axes=INPUT_AXES,
    compared=(
        *("score", "weights_from", "groups", "renormalize"),
        *("selection_bias", "dtype", "tokens"),
    ),
    routes=True,
)
