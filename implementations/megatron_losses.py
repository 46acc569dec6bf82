"""Megatron-Core's auxiliary loss and z-loss, on the scores that it computes for them."""

from __future__ import annotations

from moe_routing.implementations.balances import Balance, Balances
from moe_routing.implementations.megatron_modules import moe_utils
from moe_routing.implementations.on_device import OnDevice
from moe_routing.implementations.tensors import torch_tensor
from moe_routing.reference import BalanceConfig, BalanceInputs

BALANCES = Balances(
    of=("aux_loss", "aux_gradient", "z_loss"),
    at_balance=("one",),
    counted=("all",),
    mode=("train", "eval"),
    absent=(False,),
    ids=("top_k",),
    max_layers=1,
)


class MegatronLosses(OnDevice):
    """``switch_load_balancing_loss_func`` and ``z_loss_func``."""

    def balance(self, config: BalanceConfig, inputs: BalanceInputs) -> Balance:
        """Call them on one layer's logits. Errors: ``Unsupported``, ``BackendMissing``."""
        BALANCES.require(config, inputs)
        return _losses(config, inputs, self.device)


def _losses(config: BalanceConfig, inputs: BalanceInputs, device: str) -> Balance:
    """Return both, with the gradient of the first.

    The scores are those of ``compute_routing_scores_for_aux_loss``, which chooses the experts
    again. Its mask is true for padding, as is that of the z-loss.
    """
    import torch

    utils = moe_utils()
    logits = torch_tensor("logits", inputs.logits, dtype="float32", device=device)
    padding = torch_tensor("valid", inputs.valid, dtype="int64", device=device) == 0
    mask = padding if inputs.num_valid < inputs.num_tokens else None
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        routing_map, scores = utils.compute_routing_scores_for_aux_loss(
            leaf[0], inputs.top_k, config.score, padding_mask=mask
        )
        loss = utils.switch_load_balancing_loss_func(
            probs=scores,
            tokens_per_expert=routing_map.sum(dim=0),
            total_num_tokens=inputs.num_valid,
            topk=inputs.top_k,
            num_experts=config.num_experts,
            moe_aux_loss_coeff=1.0,
        )
        (gradient,) = torch.autograd.grad(loss, leaf)
        z_loss = utils.z_loss_func(leaf[0], 1.0, padding_mask=mask)
    return Balance(aux_loss=loss.detach(), aux_gradient=gradient, z_loss=z_loss.detach())
