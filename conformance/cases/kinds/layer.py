"""Calls of a whole layer."""

from __future__ import annotations

from moe_routing.conformance.calls.layer import LayerCase
from moe_routing.conformance.cases.kinds.kind import Kind
from moe_routing.conformance.cases.kinds.routing import ROUTING
from moe_routing.conformance.generators.layer_smaller import LAYER_REDUCTIONS, LAYER_SIZES
from moe_routing.conformance.trial.layer import LayerTrial
from moe_routing.conformance.trial.layer import facts_of as layer_facts
from moe_routing.implementations.claims import INPUT_AXES
from moe_routing.reference import LayerConfig, LayerInputs

LAYER = Kind(
    case=LayerCase,
    config=LayerConfig,
    inputs=LayerInputs,
    words=ROUTING.words,
    integers=ROUTING.integers,
    methods=("layer",),
    trial=LayerTrial,
    facts=layer_facts,
    reductions=LAYER_REDUCTIONS,
    sizes=LAYER_SIZES,
    defined=lambda facts: facts.bounds.all_defined,
    claimed=lambda case, capabilities: not capabilities.layer_refusals(case.config, case.inputs),
    refusals=lambda case, capabilities: capabilities.layer_refusals(case.config, case.inputs),
    axes=INPUT_AXES,
    compared=("dtype", "tokens"),
    contains={"routing": lambda facts: facts.bounds},
)
