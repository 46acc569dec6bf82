"""axolotl's SonicMoE: up to 0.16.1 the routers of ``sonicmoe/routing.py``, then its experts."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from moe_routing.implementations._axolotl import (
    flagged_block,
    has_kernel_file,
    kernel_module,
    moe_block,
    plain_claim,
    shared_output,
    sigmoid_claims,
    softmax_gate,
    sonicmoe_patch,
    with_lora,
)
from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.claims import GroupRule
from moe_routing.implementations.layouts import FlatRouting
from moe_routing.implementations.on_device import PreparedRouter
from moe_routing.implementations.permitted import ANY
from moe_routing.implementations.sonicmoe_experts import SonicMoeExperts
from moe_routing.implementations.tensors import TorchInputs, torch_inputs, without_graph
from moe_routing.implementations.torch_replay import FORCED, torch_replay
from moe_routing.reference import (
    Renormalize,
    RouterConfig,
    RouterInputs,
    SharedExpertConfig,
    SharedExpertInputs,
)

if TYPE_CHECKING:
    from torch import Tensor

_CLAIMS = (
    plain_claim(
        name="softmax_topk_routing",
        renormalize=(None, Renormalize()),
        logits_dtype=("input",),
    ),
    plain_claim(name="softmax_topk_wg_routing", logits_dtype=("float32",)),
    plain_claim(
        name="softmax_group_topk_routing",
        groups=(GroupRule(top=(2,), fill=(0.0,)),),
        renormalize=(None, Renormalize(eps=1e-20)),
        scale=ANY,
    ),
    *sigmoid_claims("sigmoid_topk_routing"),
    plain_claim(
        name="softmax_bias_topk_routing",
        renormalize=(Renormalize(floor=1e-12),),
        selection_bias=("statics",),
    ),
    plain_claim(
        name="softmax_group_limited_topk_routing",
        weights_from=("masked_scores",),
        groups=(None, GroupRule(top=(1,), fill=(0.0,))),
        renormalize=(None,),
        scale=ANY,
    ),
    plain_claim(
        name="gemma4_routing",
        logits_dtype=("input",),
        input_norm=(True,),
        per_expert_scale=(False, True),
    ),
)


def sonicmoe(device: str = "cpu") -> SonicMoeAdapter | SonicMoeExperts:
    """Return the adapter of what the installed axolotl has: its routers, or its experts."""
    routes = has_kernel_file("sonicmoe", "routing")
    return SonicMoeAdapter(device) if routes else SonicMoeExperts(device)


class SonicMoeAdapter(PreparedRouter[FlatRouting]):
    """The seven ``*_routing`` functions, one claim a model family, named after its function."""

    name = "sonicmoe"
    wraps = "axolotl"
    claimed = Capabilities(claims=_CLAIMS, logits="routed", replays=FORCED)

    def prepare(self, config: RouterConfig, inputs: RouterInputs) -> Callable[[], FlatRouting]:
        """Make the block of a call. Errors: as ``route``."""
        function = self.capabilities().require(config, inputs).name
        routing = kernel_module("sonicmoe", "routing")
        given = torch_inputs(inputs, self.device)
        block = _block(function, config, inputs, given)

        @without_graph
        def routed() -> FlatRouting:
            scores, tokens, experts, logits = getattr(routing, function)(given.hidden, block)
            return FlatRouting(
                scores=scores,
                token_indices=tokens,
                expert_indices=experts,
                num_tokens=inputs.num_tokens,
                logits=logits,
            )

        return routed

    replay = torch_replay

    def shared_experts(
        self, config: SharedExpertConfig, inputs: SharedExpertInputs
    ) -> Tensor | None:
        """Call ``_compute_shared_expert`` of ``sonicmoe/patch.py`` alone."""
        return shared_output(sonicmoe_patch(), config, inputs, self.device)


def _block(
    function: str, config: RouterConfig, inputs: RouterInputs, given: TorchInputs
) -> SimpleNamespace:
    match function:
        case "softmax_topk_routing":
            return moe_block(inputs, given, gate=softmax_gate(config))
        case "softmax_topk_wg_routing":
            wg = with_lora(SimpleNamespace(weight=given.gate_weight), given.gate_delta)
            return SimpleNamespace(top_k=config.top_k, gate=SimpleNamespace(wg=wg))
        case "softmax_bias_topk_routing":
            floor = config.renormalize.floor if config.renormalize else 0.0
            return moe_block(inputs, given, gate={"top_k": config.top_k, "norm_min": floor})
        case "softmax_group_limited_topk_routing":
            return moe_block(inputs, given, block=_deepseek_v2_block(config))
        case "gemma4_routing":
            return SimpleNamespace(router=_gemma4_router(config, given))
        case _:
            return moe_block(inputs, given, block=flagged_block(config))


def _deepseek_v2_block(config: RouterConfig) -> dict[str, Any]:
    block: dict[str, Any] = {"top_k": config.top_k, "routed_scaling_factor": config.scale}
    if config.groups is None:
        return {**block, "topk_method": "greedy"}
    groups = {"num_group": config.groups.count, "topk_group": config.groups.kept}
    return {**block, **groups, "topk_method": "group_limited_greedy"}


def _gemma4_router(config: RouterConfig, given: TorchInputs) -> SimpleNamespace:
    from torch.nn import functional as F

    size, ones = given.hidden.shape[1], given.hidden.new_ones
    eps = config.input_norm.eps if config.input_norm else None
    scale, expert_scale = given.hidden_scale, given.per_expert_scale
    return SimpleNamespace(
        config=SimpleNamespace(top_k_experts=config.top_k),
        norm=lambda x: F.rms_norm(x.float(), (size,), eps=eps).type_as(x),
        scale=ones(size) if scale is None else scale,
        scalar_root_size=size**-0.5,
        proj=with_lora(SimpleNamespace(weight=given.gate_weight), given.gate_delta),
        per_expert_scale=ones(config.num_experts) if expert_scale is None else expert_scale,
    )
