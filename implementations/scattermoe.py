"""axolotl's ScatterMoE router: the code of ``scattermoe_lora/layers.py``, called as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from moe_routing.implementations._axolotl import (
    flagged_block,
    kernel_module,
    moe_block,
    plain_claim,
    shared_block,
    sigmoid_claims,
    softmax_gate,
)
from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.permutes import Permutes
from moe_routing.implementations.scattermoe_experts import ScatterMoeExperts, runs_experts
from moe_routing.implementations.tensors import torch_inputs, torch_tensor, without_graph
from moe_routing.implementations.torch_gradients import torch_gradients
from moe_routing.implementations.torch_replay import FORCED, torch_replay
from moe_routing.reference import (
    ExpertGradients,
    ExpertsConfig,
    ExpertsInputs,
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
_CLAIMS = (_SOFTMAX, *sigmoid_claims("sigmoid"))


class ScatterMoeAdapter:
    """``_softmax_topk_route`` (Qwen, OLMoE, Mixtral) and ``_sigmoid_topk_route`` (DeepSeek, GLM).

    It claims what those families need, whether or not the code does it: the excluded
    experts of DeepSeek-V3 are filled with -inf. The logits are not returned.
    """

    name = "scattermoe"
    wraps = "axolotl"

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self._experts = ScatterMoeExperts(device=device)
        runs = runs_experts(device)
        routing = ("route", "dispatch", "shared_experts", "permute", "gradients", "replay")
        self.methods = (*routing, "experts", "expert_gradients") if runs else routing
        claimed = self._experts.capabilities()
        self._capabilities = Capabilities(
            claims=_CLAIMS,
            permutes=_PERMUTES,
            replays=FORCED,
            computes=claimed.computes,
            dtypes=claimed.dtypes if runs else tuple(INPUT_FORMATS),
        )

    def capabilities(self) -> Capabilities:
        """Claim the softmax families, DeepSeek-V3 with GLM, and MiniMax-M2."""
        return self._capabilities

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        """Call the function that the score names. Errors: ``Unsupported``, ``BackendMissing``."""
        return self.prepare(config, inputs)()

    def prepare(self, config: RouterConfig, inputs: RouterInputs) -> Callable[[], Routing]:
        """Make the block of a call. Errors: as ``route``."""
        claim = self.capabilities().require(config, inputs)
        return self._call(f"_{claim.name}_topk_route", claim.name, config, inputs)

    gradients = torch_gradients
    replay = torch_replay

    def dispatch(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        """Call ``_route``, which infers the score function from the presence of a bias."""
        score = "softmax" if inputs.selection_bias is None else "sigmoid"
        meant = RouterConfig.unchecked(**{**vars(config), "score": score})
        claim = self.capabilities().require(meant, inputs)
        return self._call("_route", claim.name, config, inputs)()

    def shared_experts(
        self, config: SharedExpertConfig, inputs: SharedExpertInputs
    ) -> Tensor | None:
        """Call ``_compute_shared_expert``."""
        layers = kernel_module("scattermoe_lora", "layers")
        import torch

        block, hidden = shared_block(config, inputs, self.device)
        with torch.no_grad():
            output: Tensor | None = layers._compute_shared_expert(block, hidden)
        return output

    def permute(self, config: PermutationConfig, routes: Routes) -> SortedRoutes:
        """Call ``flatten_sort_count``. Errors: ``Unsupported``, ``BackendMissing``."""
        _PERMUTES.require(config, routes)
        kernels = kernel_module("scattermoe_lora", "parallel_experts")
        ids = torch_tensor("expert_ids", routes.expert_ids, dtype="int64", device=self.device)
        sort = kernels.flatten_sort_count
        if self.device == "cpu":  # the same code, without a compiler that a CPU may lack
            sort = getattr(sort, "_torchdynamo_orig_callable", sort)
        _, order, ends = sort(ids, config.num_experts)
        return SortedRoutes(routes=order, ends=ends)

    def experts(self, config: ExpertsConfig, inputs: ExpertsInputs) -> Tensor:
        """Call ``scattermoe_experts_forward``. Errors: ``Unsupported``, ``BackendMissing``."""
        return self._experts.experts(config, inputs)

    def expert_gradients(
        self, config: ExpertsConfig, inputs: ExpertsInputs, cotangent: npt.NDArray[np.float32]
    ) -> ExpertGradients:
        """Go back through ``scattermoe_experts_forward``. Errors: as ``experts``."""
        return self._experts.expert_gradients(config, inputs, cotangent)

    def _call(
        self, function: str, family: str, config: RouterConfig, inputs: RouterInputs
    ) -> Callable[[], Routing]:
        layers = kernel_module("scattermoe_lora", "layers")
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
