"""Calls of a router's gradients."""

from __future__ import annotations

from moe_routing.conformance.calls.gradients import GradientCase, GradientInputs
from moe_routing.conformance.cases.kinds.kind import Kind
from moe_routing.conformance.cases.kinds.routing import ROUTING
from moe_routing.conformance.generators.gradients import GRADIENT_REDUCTIONS
from moe_routing.conformance.generators.reductions import ROUTING_REDUCTIONS
from moe_routing.conformance.generators.sizes import ROUTING_SIZES
from moe_routing.conformance.trial.gradients import GradientTrial
from moe_routing.conformance.trial.gradients import facts_of as gradient_facts
from moe_routing.implementations.claims import INPUT_AXES
from moe_routing.reference import RouterConfig

GRADIENT = Kind(
    case=GradientCase,
    config=RouterConfig.unchecked,
    inputs=GradientInputs,
    words=ROUTING.words,
    integers=ROUTING.integers,
    methods=("gradients",),
    trial=GradientTrial,
    facts=gradient_facts,
    reductions=(*GRADIENT_REDUCTIONS, *ROUTING_REDUCTIONS),
    sizes=ROUTING_SIZES,
    claimed=ROUTING.claimed,
    refusals=ROUTING.refusals,
    axes=INPUT_AXES,
    compared=ROUTING.compared,
    contains={"routing": lambda facts: facts.bounds},
)
