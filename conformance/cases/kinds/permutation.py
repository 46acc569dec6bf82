"""Calls that permute tokens by expert."""

from __future__ import annotations

from moe_routing.conformance.calls.permutation import PermutationCase
from moe_routing.conformance.cases.kinds.kind import Kind
from moe_routing.conformance.generators.permutation import PERMUTATION_REDUCTIONS, PERMUTATION_SIZES
from moe_routing.conformance.trial.permutation import PermutationTrial, due_of
from moe_routing.implementations.permutes import ROUTES_AXES
from moe_routing.reference import PermutationConfig, Routes

PERMUTATION = Kind(
    case=PermutationCase,
    config=PermutationConfig,
    inputs=Routes,
    words=(),
    integers=("expert_ids",),
    methods=("permute",),
    trial=PermutationTrial,
    facts=lambda case, numerics: due_of(case),
    reductions=PERMUTATION_REDUCTIONS,
    sizes=PERMUTATION_SIZES,
    claimed=lambda case, capabilities: not capabilities.permutes.refusals(case.config, case.inputs),
    refusals=lambda case, capabilities: capabilities.permutes.refusals(case.config, case.inputs),
    axes=ROUTES_AXES,
    compared=("align", "empty_takes", "order", "tokens", "absent"),
)
