"""The blocks of Llama 4 as Meta wrote it, and as fairseq2 has it: they weigh what experts take in.

Every expert runs on every token there, times a weight of 0 where it was not chosen: the
weights of all are heard at the block's sigmoid.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

from moe_routing.implementations.claims import Claim
from moe_routing.implementations.functions import Family
from moe_routing.implementations.layouts import DenseRouting
from moe_routing.implementations.lone_modules import lone_module
from moe_routing.implementations.probing import heard
from moe_routing.implementations.tensors import TorchInputs
from moe_routing.reference import RouterConfig

SINGLE = {name: Family(name, name) for name in ("llama-models", "fairseq2")}
"""The packages, by their distribution."""

_CLAIM = Claim.of_preset(
    "llama4_text", **dict.fromkeys(("logits_dtype", "scores_dtype", "weights_dtype"), ("input",))
)


@cache
def _module(package: str, name: str) -> ModuleType:
    install = f"python -m pip install --no-deps {package}"
    return lone_module(name, install=install, absent=("fairscale", "fairseq2n"))


def _heard(call: Any, block: Any, hidden: Any) -> DenseRouting:
    """Run a block, and return what its sigmoid did: the weights of all experts."""
    import torch

    with heard(torch.sigmoid) as found:
        call(block, hidden[None])
    return DenseRouting(weights=found[0].T.contiguous())  # the block has a row an expert


@SINGLE["llama-models"].only(_CLAIM)
def llama_models(config: RouterConfig, given: TorchInputs) -> DenseRouting:
    """``MoE`` of Llama 4, on a single rank."""
    import torch

    module: Any = _module("llama-models", "llama_models.llama4.moe")
    module.reduce_from_model_parallel_region = lambda output: output  # over a single rank
    said = SimpleNamespace(top_k=config.top_k)
    block = SimpleNamespace(moe_args=said, router_DE=given.gate_weight.T)
    block.shared_expert, block.experts = torch.zeros_like, lambda routed: routed
    return _heard(module.MoE.forward, block, given.hidden)


@SINGLE["fairseq2"].only(_CLAIM)
def fairseq2(config: RouterConfig, given: TorchInputs) -> DenseRouting:
    """``MoE`` of Llama 4."""
    block = SimpleNamespace(top_k=config.top_k, router=given.gate_weight.T, tp_gang=None)
    block.shared_expert = None

    class Same:
        """Experts that return what they are given."""

        num_local_experts = config.num_experts

        def __call__(self, routed: Any) -> Any:
            return routed

    block.experts = Same()
    call = _module("fairseq2", "fairseq2.models.llama4.moe").MoE.forward
    return _heard(call, block, given.hidden)
