"""Calls of the shards of experts."""

from __future__ import annotations

from moe_routing.conformance.calls.shards import ShardsCase, ShardsInputs
from moe_routing.conformance.cases.kinds.kind import Kind
from moe_routing.conformance.generators.shards_smaller import SHARDS_REDUCTIONS, SHARDS_SIZES
from moe_routing.conformance.trial.shards import ShardsTrial, sharded_of
from moe_routing.implementations import Capabilities
from moe_routing.implementations.shards import SHARDS_AXES
from moe_routing.reference import ExpertsConfig


def shards_refused(case: ShardsCase, capabilities: Capabilities) -> list[str]:
    """Return what capabilities lack for calls of shards, in phrases."""
    found = capabilities.computes.refusals(case.config, case.inputs)
    found += capabilities.shards.refusals(case.inputs.placement)
    return capabilities.storage_refusals(case.inputs) + found


SHARDS = Kind(
    case=ShardsCase,
    config=ExpertsConfig,
    inputs=ShardsInputs,
    words=("dtype", "num_ranks"),
    integers=("expert_ids", "rank_of", "logical_of"),
    methods=("shard",),
    trial=ShardsTrial,
    facts=lambda case, numerics: sharded_of(case),
    reductions=SHARDS_REDUCTIONS,
    sizes=SHARDS_SIZES,
    claimed=lambda case, capabilities: not shards_refused(case, capabilities),
    refusals=shards_refused,
    axes=SHARDS_AXES,
    compared=("activation", "gated", "weight_on", "dtype", "tokens", *SHARDS_AXES),
    contains={"experts": lambda facts: facts.layer},
)
