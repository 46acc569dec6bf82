"""torchtitan's router: the module that its MoE layers build, run as it is."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

from moe_routing.implementations.balances import Balance
from moe_routing.implementations.capabilities import Capabilities, Limits
from moe_routing.implementations.claims import Claim, GroupRule
from moe_routing.implementations.permitted import ANY
from moe_routing.implementations.permutes import Permutes
from moe_routing.implementations.protocol import missing
from moe_routing.implementations.tensors import (
    TorchInputs,
    parameter,
    torch_inputs,
    torch_tensor,
    without_graph,
)
from moe_routing.implementations.torch_gradients import torch_gradients
from moe_routing.implementations.torch_replay import FORCED, torch_replay
from moe_routing.implementations.torchtitan_bias import BALANCES, moved_bias
from moe_routing.reference import (
    BalanceConfig,
    BalanceInputs,
    PermutationConfig,
    Renormalize,
    RouterConfig,
    RouterInputs,
    Routes,
    Routing,
    SortedTokens,
)
from moe_routing.reference.formats import INPUT_FORMATS

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

INSTALL = (
    "python -m pip install --no-deps torchtitan==0.3.0 spmd_types==0.2.3 tyro docstring-parser tqdm"
)
_PERMUTES = Permutes(align=(1,), empty_takes=("nothing",), absent=(False,), repeats=(False,))
_CLAIMS = (
    Claim.plain(
        score=("softmax", "sigmoid"),
        groups=(None, GroupRule(top=(2,), fill=(-math.inf,))),
        renormalize=(None, Renormalize(eps=1e-20)),
        scale=ANY,
        selection_bias=("none", "block"),
        gate_bias=(False, True),
    ),
    # Qwen3 adds nothing to the norm. A softmax's K best sum to 1 / E at least, so the 1e-20 that
    # is always added changes no bit; with a sigmoid only DeepSeek-V3 is renormalised.
    Claim.plain(renormalize=(Renormalize(),)),
)


class TorchtitanAdapter:
    """``TokenChoiceTopKRouter``, given the bias that the MoE layer around it keeps.

    It serves DeepSeek-V3, Qwen3, Llama 4 and gpt_oss, and computes in float32 whatever the
    dtype of its input. It relies on ``torch.autocast`` for that, which does not support it on
    a CPU: only float32 inputs are claimed there.
    """

    name = "torchtitan"
    wraps = "torchtitan"

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        dtypes = ("float32",) if device == "cpu" else tuple(INPUT_FORMATS)
        self._capabilities = Capabilities(
            claims=_CLAIMS,
            logits="routed",
            dtypes=dtypes,
            permutes=_PERMUTES,
            balances=BALANCES,
            replays=FORCED,
            limits=Limits(min_group_size=2),  # it refuses smaller groups, which have no best two
        )

    def capabilities(self) -> Capabilities:
        """Claim what the module's settings offer."""
        return self._capabilities

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        """Run the module. Errors: ``Unsupported``, ``BackendMissing``."""
        return self.prepare(config, inputs)()

    def prepare(self, config: RouterConfig, inputs: RouterInputs) -> Callable[[], Routing]:
        """Build the module for one sequence. Errors: as ``route``."""
        self.capabilities().require(config, inputs)
        moe = module("models.common.moe")
        given = torch_inputs(inputs, self.device)
        router = _router(moe, config, given)
        heard: dict[str, Tensor] = {}
        gate = router.get_submodule("gate")
        gate.register_forward_hook(lambda *call: heard.update(logits=call[2][0]))

        @without_graph
        def routed() -> Routing:
            weights, ids, _ = router(given.hidden[None], given.selection_bias)
            return Routing(weights=weights[0], expert_ids=ids[0], **heard)

        return routed

    gradients = torch_gradients
    replay = torch_replay

    def permute(self, config: PermutationConfig, routes: Routes) -> SortedTokens:
        """Call the local dispatcher. Errors: ``Unsupported``, ``BackendMissing``."""
        _PERMUTES.require(config, routes)
        dispatcher = module("models.common.token_dispatcher").LocalTokenDispatcher.Config(
            num_experts=config.num_experts, top_k=routes.top_k
        )
        ids = torch_tensor("expert_ids", routes.expert_ids, dtype="int64", device=self.device)
        weights = torch_tensor("weights", routes.weights, dtype="float32", device=self.device)
        counts = counts_of(ids, config.num_experts)
        hidden = weights.new_zeros((routes.num_tokens, 1))
        _, counts, found = dispatcher.build().dispatch(hidden, weights, ids, counts)
        return SortedTokens(
            tokens=found.token_indices_experts_sorted_N,
            counts=counts,
            weights=found.topk_scores_experts_sorted_N,
        )

    def balance(self, config: BalanceConfig, inputs: BalanceInputs) -> Balance:
        """Run the hook on the counts of a step. Errors: ``Unsupported``, ``BackendMissing``."""
        BALANCES.require(config, inputs)
        module("components.optimizer.optimizer")
        import torch

        ids = torch_tensor("expert_ids", inputs.expert_ids, dtype="int64", device=self.device)
        bias = torch_tensor("bias", inputs.bias, dtype="float32", device=self.device)
        counts = torch.stack([counts_of(each, config.num_experts) for each in ids])
        return moved_bias(counts, bias, config.rate)


def _router(moe: ModuleType, config: RouterConfig, given: TorchInputs) -> Module:
    """Build the router around the case's gate, with the case's settings."""
    groups, (experts, hidden) = config.groups, given.gate_weight.shape
    router: Module = moe.TokenChoiceTopKRouter.Config(
        num_experts=config.num_experts,
        gate=moe.Linear.Config(in_features=hidden, out_features=experts),
        num_expert_groups=groups and groups.count,
        num_limited_groups=groups and groups.kept,
        top_k=config.top_k,
        score_func=config.score,
        route_norm=config.renormalize is not None,
        route_scale=config.scale,
    ).build()
    gate = router.get_submodule("gate")
    gate.weight = parameter("gate_weight", given.gate_weight)
    if given.gate_bias is not None:
        gate.bias = parameter("gate_bias", given.gate_bias)
    return router


def counts_of(ids: Tensor, num_experts: int) -> Tensor:
    """Return the tokens of each expert, counted as ``MoE.forward`` does: once a token."""
    import torch

    empty = torch.zeros((len(ids), num_experts), dtype=torch.bool, device=ids.device)
    return empty.scatter_(-1, ids, True).sum(dim=0)


def module(name: str) -> ModuleType:
    """Import a module of torchtitan. Errors: ``BackendMissing``."""
    try:
        return importlib.import_module(f"torchtitan.{name}")
    except ModuleNotFoundError as error:
        raise missing("torchtitan", "torchtitan", error, INSTALL) from error
