"""torchtitan's router, permutation and update of the bias as one adapter."""

from __future__ import annotations

from moe_routing.implementations.capabilities import Capabilities, Limits
from moe_routing.implementations.torch_replay import FORCED
from moe_routing.implementations.torchtitan_bias import BALANCES, TorchtitanBias
from moe_routing.implementations.torchtitan_dispatcher import PERMUTES, TorchtitanDispatcher
from moe_routing.implementations.torchtitan_router import CLAIMS, TorchtitanRouter
from moe_routing.reference.formats import INPUT_FORMATS


class TorchtitanAdapter(TorchtitanRouter, TorchtitanDispatcher, TorchtitanBias):
    """What a layer of torchtitan does around its experts, which are ``torchtitan-experts``.

    The router serves DeepSeek-V3, Qwen3, Llama 4 and gpt_oss, and computes in float32 whatever
    the dtype of its input. It relies on ``torch.autocast`` for that, which does not support it on
    a CPU: only float32 inputs are claimed there.
    """

    name = "torchtitan"
    wraps = "torchtitan"

    def __init__(self, device: str = "cpu") -> None:
        super().__init__(device)
        self.claimed = Capabilities(
            claims=CLAIMS,
            logits="routed",
            dtypes=("float32",) if device == "cpu" else tuple(INPUT_FORMATS),
            permutes=PERMUTES,
            balances=BALANCES,
            replays=FORCED,
            limits=Limits(min_group_size=2),  # it refuses smaller groups, which have no best two
        )
