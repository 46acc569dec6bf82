"""Calls of all ranks, and of their gradients."""

from __future__ import annotations

from dataclasses import replace

from moe_routing.conformance.calls.ranks import (
    RankGradientCase,
    RankGradientInputs,
    RanksCase,
    RanksInputs,
)
from moe_routing.conformance.cases.kinds.kind import Kind
from moe_routing.conformance.cases.kinds.shards import SHARDS, shards_refused
from moe_routing.conformance.generators.ranks import (
    RANK_GRADIENT_REDUCTIONS,
    RANKS_REDUCTIONS,
    RANKS_SIZES,
)
from moe_routing.conformance.trial.ranks import RankGradientsTrial, RanksTrial, together_of
from moe_routing.implementations import Capabilities
from moe_routing.implementations.shards import SHARDS_AXES
from moe_routing.reference import ExpertsConfig


def _ranks_refused(case: RanksCase, capabilities: Capabilities) -> list[str]:
    """Return what capabilities lack for calls of all ranks, in phrases."""
    inputs, shards = case.inputs, capabilities.shards
    sizes = inputs.batches.tolist()
    return shards_refused(case, capabilities) + shards.batch_refusals(sizes, shared=inputs.shared)


RANKS = Kind(
    case=RanksCase,
    config=ExpertsConfig,
    inputs=RanksInputs,
    words=SHARDS.words,
    integers=(*SHARDS.integers, "home"),
    methods=("on_ranks",),
    trial=RanksTrial,
    facts=lambda case, numerics: together_of(case),
    reductions=RANKS_REDUCTIONS,
    sizes=RANKS_SIZES,
    claimed=lambda case, capabilities: not _ranks_refused(case, capabilities),
    refusals=_ranks_refused,
    axes=SHARDS_AXES,
    compared=SHARDS.compared,
    contains={"experts": lambda facts: facts.layer},
)


RANK_GRADIENT = replace(
    RANKS,
    case=RankGradientCase,
    inputs=RankGradientInputs,
    methods=("gradients_on_ranks",),
    trial=RankGradientsTrial,
    reductions=RANK_GRADIENT_REDUCTIONS,
)
