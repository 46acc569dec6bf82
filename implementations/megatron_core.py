"""Megatron-Core as one adapter: a class for each protocol that it serves."""

from __future__ import annotations

from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.megatron_experts import COMPUTES, MegatronExperts
from moe_routing.implementations.megatron_losses import BALANCES, MegatronLosses
from moe_routing.implementations.megatron_maps import (
    DROPS,
    PERMUTES,
    MegatronDropping,
    MegatronPermute,
)
from moe_routing.implementations.megatron_replay import REPLAYS
from moe_routing.implementations.megatron_router import CLAIMS, MegatronRouter


class MegatronCoreAdapter(
    MegatronRouter, MegatronPermute, MegatronDropping, MegatronLosses, MegatronExperts
):
    """A layer of Megatron-Core but for its gate: router, permutation, capacity, losses, experts.

    The gate (``TopKRouter.gating``) moves its weights to a GPU. Scores and weights are in the
    dtype that it gives the logits: the input's, or float32 by ``--moe-router-dtype fp32``.
    Claimed are softmax before and after top-k (Qwen, Mixtral), softmax limited to devices, and
    sigmoid limited to nodes (DeepSeek-V3), normalised from K = 2 on (Llama 4 has K = 1). Groups
    score their best ``K // kept``, which is not DeepSeek-V2's rule.
    """

    name = "megatron-core"
    wraps = "megatron-core"
    claimed = Capabilities(
        permutes=PERMUTES,
        replays=REPLAYS,
        drops=DROPS,
        balances=BALANCES,
        computes=COMPUTES,
        claims=CLAIMS,
        takes="logits",
    )
