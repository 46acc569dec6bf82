"""DeepSpeed's capacity: ``top1gating``, ``top2gating`` and ``topkgating``, which route and drop."""

from __future__ import annotations

import importlib
import sys
from abc import ABC, abstractmethod
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from moe_routing.implementations.balances import Balance, Balances
from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.drops import Drops
from moe_routing.implementations.protocol import missing
from moe_routing.implementations.tensors import torch_tensor
from moe_routing.reference import (
    BalanceConfig,
    BalanceInputs,
    CapacityConfig,
    Routes,
    Routing,
)

if TYPE_CHECKING:
    from torch import Tensor

INSTALL = "python -m pip install deepspeed==0.19.8"
_SHARED: dict[str, Any] = {
    "share": ("routes",),
    "rounding": ("up",),
    "zero": ("nothing",),
    "absent": (False,),
    "sums": ("one",),
}
_LOSS: dict[str, Any] = {
    "of": ("counts", "aux_loss", "aux_gradient"),
    "score": ("softmax",),
    "mode": ("train",),
    "padded": (False,),
    "absent": (False,),
    "ids": ("top_k",),
    "max_layers": 1,
}


class _Drop(ABC):
    """A gating function that is given the routes as logits, of which it takes the softmax.

    They are the logarithms of the weights, in float64 where the function takes it, so that the
    probabilities are the weights to the last bit of float32; other experts have none.
    """

    wraps = "deepspeed"
    drops: ClassVar[Drops]
    balances: ClassVar[Balances]
    logits_dtype: ClassVar[str] = "float64"

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self._capabilities = Capabilities(drops=self.drops, balances=self.balances)

    def capabilities(self) -> Capabilities:
        """Claim what the function's settings offer."""
        return self._capabilities

    def drop(self, config: CapacityConfig, routes: Routes) -> Routing:
        """Call the function. Errors: ``Unsupported``, ``BackendMissing``."""
        self.drops.require(config, routes)
        module = _module()
        import torch

        ids = torch_tensor("expert_ids", routes.expert_ids, dtype="int64", device=self.device)
        weights = torch_tensor("weights", routes.weights, dtype="float32", device=self.device)
        logits = torch.full(
            (routes.num_tokens, config.num_experts),
            -torch.inf,
            dtype=getattr(torch, self.logits_dtype),
            device=self.device,
        )
        logits.scatter_(1, ids, weights.double().log().to(logits.dtype))
        _, _, _, found, _, gates, _ = self._gated(module, logits, config, routes.top_k)
        return Routing(weights=gates.T.contiguous(), expert_ids=found.T.contiguous())

    def balance(self, config: BalanceConfig, inputs: BalanceInputs) -> Balance:
        """Call the function for its loss and counts. Errors: as ``drop``."""
        self.balances.require(config, inputs)
        module = _module()
        import torch

        logits = torch_tensor("logits", inputs.logits, dtype="float32", device=self.device)
        rule = CapacityConfig(num_experts=config.num_experts)
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            loss, *_, counts = self._gated(module, leaf[0], rule, inputs.top_k)
            (gradient,) = torch.autograd.grad(loss, leaf)
        return Balance(counts=counts[None], aux_loss=loss.detach(), aux_gradient=gradient)

    @abstractmethod
    def _gated(self, module: Any, logits: Tensor, config: CapacityConfig, top_k: int) -> Any:
        """Return all that the function answers."""


class Top1Drop(_Drop):
    """``top1gating``: one choice a token, and of the tokens of an expert any, by chance or not.

    ``use_rts`` takes them by chance, ``torch.topk`` of ones and zeros without it.
    """

    name = "deepspeed:top1_drop"
    balances = Balances(top_k=(1,), **_LOSS)
    drops = Drops(minimum=(0,), order=("free",), survivors=("kept",), top_k=(1,), **_SHARED)

    def _gated(self, module: Any, logits: Tensor, config: CapacityConfig, top_k: int) -> Any:
        return module.top1gating(
            logits, config.factor, config.minimum, use_rts=False, sparse_routes=True
        )


class Top2Drop(_Drop):
    """``top2gating``: two choices a token, and all first ones before the second ones.

    It takes logits in float32 alone, which weights do not come back from to the last bit: what
    survivors weigh is not claimed.
    """

    name = "deepspeed:top2_drop"
    balances = Balances(top_k=(2,), counted=("first",), **_LOSS)
    drops = Drops(order=("slot",), survivors=("free",), top_k=(2,), **_SHARED)
    logits_dtype = "float32"

    def _gated(self, module: Any, logits: Tensor, config: CapacityConfig, top_k: int) -> Any:
        return module.top2gating(
            logits,
            config.factor,
            config.minimum,
            top2_2nd_expert_sampling=False,
            sparse_routes=True,
        )


class TopKDrop(_Drop):
    """``topkgating``: any number of choices, kept by position or by weight."""

    name = "deepspeed:topk_drop"
    balances = Balances(at_balance=("one",), counted=("all",), **_LOSS)
    drops = Drops(
        order=("token", "weight"),
        survivors=("normalized",),
        top_k=range(1, sys.maxsize),
        **_SHARED,
    )

    def _gated(self, module: Any, logits: Tensor, config: CapacityConfig, top_k: int) -> Any:
        policy = "probs" if config.order == "weight" else "position"
        return module.topkgating(
            logits,
            top_k,
            config.factor,
            config.minimum,
            drop_policy=policy,
            sparse_routes=True,
        )


def _module() -> ModuleType:
    try:
        return importlib.import_module("deepspeed.moe.sharded_moe")
    except ModuleNotFoundError as error:
        raise missing("deepspeed", "deepspeed", error, INSTALL) from error
