"""axolotl's ScatterMoE: its router, sort and shared experts, called as they are, and experts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from moe_routing.implementations._axolotl import (
    flagged_block,
    kernel_module,
    moe_block,
    plain_claim,
    shared_output,
    sigmoid_claims,
    softmax_gate,
)
from moe_routing.implementations.on_device import OnDevice, PreparedRouter
from moe_routing.implementations.permutes import Permutes
from moe_routing.implementations.scattermoe_experts import ScatterMoeExperts, runs_experts
from moe_routing.implementations.tensors import torch_inputs, torch_tensor, without_graph
from moe_routing.implementations.torch_replay import FORCED, torch_replay
from moe_routing.reference import (
    PermutationConfig,
    Renormalize,
    RouterConfig,
    RouterInputs,
    Routes,
    Routing,
    SharedExpertConfig,
    SharedExpertInputs,
    SortedRoutes,
)
from moe_routing.reference.formats import INPUT_FORMATS

if TYPE_CHECKING:
    from torch import Tensor

_SOFTMAX = plain_claim(
    name="softmax",
    renormalize=(None, Renormalize()),
    logits_dtype=("input",),
)
_PERMUTES = Permutes(align=(1,), empty_takes=("nothing",), order=("free",), absent=(False,))
_ROUTING = ("route", "dispatch", "shared_experts", "permute", "gradients", "replay")
_FOLDER = "scattermoe_lora"
_CLAIMS = (_SOFTMAX, *sigmoid_claims("sigmoid"))


class ScatterMoeRouter(PreparedRouter[Routing]):
    """``_softmax_topk_route`` of Qwen, OLMoE, Mixtral; ``_sigmoid_topk_route`` of DeepSeek, GLM."""

    def prepare(self, config: RouterConfig, inputs: RouterInputs) -> Callable[[], Routing]:
        """Make the block of a call of the function that the score names. Errors: as ``route``."""
        claim = self.capabilities().require(config, inputs)
        return self._call(f"_{claim.name}_topk_route", claim.name, config, inputs)

    replay = torch_replay

    def dispatch(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        """Call ``_route``, which infers the score function from the presence of a bias."""
        score = "softmax" if inputs.selection_bias is None else "sigmoid"
        meant = RouterConfig.unchecked(**{**vars(config), "score": score})
        claim = self.capabilities().require(meant, inputs)
        return self._call("_route", claim.name, config, inputs)()

    def _call(
        self, function: str, family: str, config: RouterConfig, inputs: RouterInputs
    ) -> Callable[[], Routing]:
        layers = kernel_module(_FOLDER, "layers")
        given = torch_inputs(inputs, self.device)
        block = moe_block(inputs, given, **_attributes(family, config))

        @without_graph
        def routed() -> Routing:
            gate, weight, delta = layers._unwrap_gate_lora(block.gate)
            answer = getattr(layers, function)(block, gate, given.hidden, weight, delta)
            return Routing(weights=answer[0], expert_ids=answer[1])

        return routed


def _attributes(family: str, config: RouterConfig) -> dict[str, dict[str, Any]]:
    if family == "softmax":
        return {"gate": softmax_gate(config)}
    gate = {"top_k": config.top_k, "num_experts": config.num_experts}
    return {"gate": gate, "block": flagged_block(config)}


class ScatterMoeSort(OnDevice):
    """``flatten_sort_count``, which sorts routes by their expert."""

    def permute(self, config: PermutationConfig, routes: Routes) -> SortedRoutes:
        """Call the function. Errors: ``Unsupported``, ``BackendMissing``."""
        _PERMUTES.require(config, routes)
        sort = kernel_module(_FOLDER, "parallel_experts").flatten_sort_count
        ids = torch_tensor("expert_ids", routes.expert_ids, dtype="int64", device=self.device)
        if self.device == "cpu":  # the same code, without a compiler that a CPU may lack
            sort = getattr(sort, "_torchdynamo_orig_callable", sort)
        _, order, ends = sort(ids, config.num_experts)
        return SortedRoutes(routes=order, ends=ends)


class ScatterMoeAdapter(ScatterMoeRouter, ScatterMoeSort, ScatterMoeExperts):
    """The router, the sort and the shared experts of ``scattermoe_lora``, and what runs experts.

    It claims what the families need that it serves (softmax, DeepSeek-V3 with GLM, MiniMax-M2),
    whether or not the code does it: the excluded experts of DeepSeek-V3 are filled with -inf. The
    logits are not returned. Experts are run where the kernels can.
    """

    def __init__(self, device: str = "cpu") -> None:
        ScatterMoeExperts.__init__(self, device=device)
        runs = runs_experts(device)
        self.methods = (*_ROUTING, "experts", "expert_gradients") if runs else _ROUTING
        self.claimed = replace(
            self.claimed,
            claims=_CLAIMS,
            permutes=_PERMUTES,
            replays=FORCED,
            dtypes=self.claimed.dtypes if runs else tuple(INPUT_FORMATS),
        )

    def shared_experts(
        self, config: SharedExpertConfig, inputs: SharedExpertInputs
    ) -> Tensor | None:
        """Call ``_compute_shared_expert``. Errors: ``BackendMissing``."""
        return shared_output(kernel_module(_FOLDER, "layers"), config, inputs, self.device)
