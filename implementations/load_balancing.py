"""transformers' load balancing loss: the function that its models with auxiliary losses share."""

from __future__ import annotations

import importlib
from typing import Any

from moe_routing.implementations.balances import Balance, Balances
from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.on_device import OnDevice
from moe_routing.implementations.protocol import missing
from moe_routing.implementations.tensors import torch_tensor
from moe_routing.reference import BalanceConfig, BalanceInputs

INSTALL = "python -m pip install transformers==5.23.0"
_BALANCES = Balances(
    of=("aux_loss", "aux_gradient"),
    score=("softmax",),
    at_balance=("top_k",),
    counted=("all",),
    over_layers=("pooled",),
    mode=("train", "eval"),
    absent=(False,),
    ids=("top_k",),
)


class LoadBalancingLoss(OnDevice):
    """``load_balancing_loss_func`` of Mixtral, which some thirty models have a copy of.

    It chooses the experts again, as the greatest logits: a selection bias goes unseen.
    """

    name = "transformers-loss"
    wraps = "transformers"
    claimed = Capabilities(balances=_BALANCES)

    def balance(self, config: BalanceConfig, inputs: BalanceInputs) -> Balance:
        """Call the function. Errors: ``Unsupported``, ``BackendMissing``."""
        _BALANCES.require(config, inputs)
        import torch

        logits = torch_tensor("logits", inputs.logits, dtype="float32", device=self.device)
        valid = torch_tensor("valid", inputs.valid, dtype="int64", device=self.device)
        padded = inputs.num_valid < inputs.num_tokens
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            loss = _function()(
                tuple(leaf.unbind()), config.num_experts, inputs.top_k, valid if padded else None
            )
            (gradient,) = torch.autograd.grad(loss, leaf)
        return Balance(aux_loss=loss.detach(), aux_gradient=gradient)


def _function() -> Any:
    try:
        module = importlib.import_module("transformers.models.mixtral.modeling_mixtral")
    except ModuleNotFoundError as error:
        raise missing("transformers", "transformers", error, INSTALL) from error
    return module.load_balancing_loss_func
