"""Calls of the gradients of experts."""

from __future__ import annotations

from moe_routing.conformance.calls.expert_gradients import ExpertGradientCase, ExpertGradientInputs
from moe_routing.conformance.cases.kinds.experts import EXPERTS
from moe_routing.conformance.cases.kinds.kind import Kind
from moe_routing.conformance.generators.expert_gradients import EXPERT_GRADIENT_REDUCTIONS
from moe_routing.conformance.generators.experts_smaller import EXPERTS_REDUCTIONS, EXPERTS_SIZES
from moe_routing.conformance.trial.expert_gradients import ExpertGradientTrial, learning_of
from moe_routing.implementations.computes import EXPERTS_AXES
from moe_routing.reference import ExpertsConfig

EXPERT_GRADIENT = Kind(
    case=ExpertGradientCase,
    config=ExpertsConfig,
    inputs=ExpertGradientInputs,
    integers=EXPERTS.integers,
    methods=("expert_gradients",),
    trial=ExpertGradientTrial,
    facts=lambda case, numerics: learning_of(case),
    reductions=(*EXPERT_GRADIENT_REDUCTIONS, *EXPERTS_REDUCTIONS),
    sizes=EXPERTS_SIZES,
    claimed=EXPERTS.claimed,
    refusals=EXPERTS.refusals,
    axes=EXPERTS_AXES,
    compared=EXPERTS.compared,
    contains={"experts": lambda facts: facts.layer},
)
