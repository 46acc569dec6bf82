"""TransformerEngine's fused router, which Megatron's ``--moe-router-fusion`` runs."""

from __future__ import annotations

import importlib
import math
from typing import Any

from moe_routing.implementations.balances import Balance, Balances
from moe_routing.implementations.capabilities import Capabilities, Limits
from moe_routing.implementations.claims import Claim, GroupRule
from moe_routing.implementations.from_two import FromTwo
from moe_routing.implementations.functions import Family
from moe_routing.implementations.layouts import RoutingMap
from moe_routing.implementations.on_device import OnDevice
from moe_routing.implementations.permitted import ANY
from moe_routing.implementations.protocol import missing, require_gpu
from moe_routing.implementations.tensors import TorchInputs, torch_tensor
from moe_routing.reference import BalanceConfig, BalanceInputs, Renormalize, RouterConfig

INSTALL = (
    "python -m pip install --no-build-isolation 'transformer-engine[core_cu13,pytorch]==2.20.2'"
)
ROUTER = Family("transformer-engine", "transformer-engine", needs_gpu=True)

_ROWS: dict[str, Any] = {
    "differentiable": True,
    "takes": "logits",
    "layouts": ("contiguous",),
    "limits": Limits(min_tokens=1),
}
_OUT: dict[str, Any] = {
    "groups": (None, GroupRule(top=("K / kept",), fill=(-math.inf,))),
    "scale": ANY,
    "weights_dtype": ("input",),
}
_EACH: dict[str, Any] = {
    "score": ("sigmoid", "sqrtsoftplus"),
    "renormalize": (FromTwo(Renormalize(eps=1e-20)),),
    **_OUT,
}


def _functions() -> Any:
    try:
        return importlib.import_module("transformer_engine.pytorch.router")
    except ModuleNotFoundError as error:
        raise missing("transformer_engine", "transformer_engine", error, INSTALL) from error


def _routed(config: RouterConfig, given: TorchInputs, score: str, pre: bool = False) -> RoutingMap:
    groups = config.groups
    probs, chosen = _functions().fused_topk_with_score_function(
        given.logits,
        config.top_k,
        pre,
        groups.count if groups else None,
        groups.kept if groups else None,
        config.scale,
        score,
        given.selection_bias,
    )
    return RoutingMap(probs=probs, routing_map=chosen)


@ROUTER.function(Claim.plain(**_OUT), **_ROWS)
def softmax(config: RouterConfig, given: TorchInputs) -> RoutingMap:
    """``fused_topk_with_score_function``: softmax, then top-k."""
    return _routed(config, given, "softmax", pre=True)


@ROUTER.function(
    Claim.plain(score=("identity",), weights_from=("softmax_of_selected",), **_OUT), **_ROWS
)
def softmax_of_selected(config: RouterConfig, given: TorchInputs) -> RoutingMap:
    """``fused_topk_with_score_function``: top-k, then softmax."""
    return _routed(config, given, "softmax")


@ROUTER.function(Claim.plain(**_EACH), **_ROWS)
def sigmoid(config: RouterConfig, given: TorchInputs) -> RoutingMap:
    """``fused_topk_with_score_function``: sigmoid or sqrtsoftplus, without a bias."""
    return _routed(config, given, config.score)


@ROUTER.function(
    Claim.plain(selection_bias=("gate",), **_EACH), **{**_ROWS, "dtypes": ("float32",)}
)
def biased(config: RouterConfig, given: TorchInputs) -> RoutingMap:
    """``fused_topk_with_score_function``: sigmoid or sqrtsoftplus, with a bias."""
    return _routed(config, given, config.score)


_BALANCES = Balances(
    of=("aux_loss", "aux_gradient"),
    at_balance=("one",),
    counted=("all",),
    mode=("train", "eval"),
    padded=(False,),
    absent=(False,),
    ids=("top_k",),
    max_layers=1,
)


class AuxLoss(OnDevice):
    """``fused_moe_aux_loss`` of ``fused_compute_score_for_moe_aux_loss``, which chooses again."""

    name = "transformer-engine:aux_loss"
    wraps = "transformer-engine"
    claimed = Capabilities(balances=_BALANCES)

    def balance(self, config: BalanceConfig, inputs: BalanceInputs) -> Balance:
        """Call the two functions. Errors: ``Unsupported``, ``BackendMissing``."""
        _BALANCES.require(config, inputs)
        require_gpu(self.name, self.device)
        import torch

        router, sizes = _functions(), (config.num_experts, inputs.top_k)
        logits = torch_tensor("logits", inputs.logits, dtype="float32", device=self.device)
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            chosen, scores = router.fused_compute_score_for_moe_aux_loss(
                leaf[0], inputs.top_k, config.score
            )
            counts = chosen.sum(dim=0)
            loss = router.fused_moe_aux_loss(scores, counts, inputs.num_tokens, *sizes, 1.0)
            (gradient,) = torch.autograd.grad(loss, leaf)
        return Balance(aux_loss=loss.detach(), aux_gradient=gradient)


MEMBERS = NEEDS_GPU = (*ROUTER.members, "aux_loss")
OUT_OF_SCOPE: dict[str, str] = {}


def __getattr__(name: str) -> Any:
    return AuxLoss if name == "aux_loss" else ROUTER.made(name)
