"""axolotl's SonicMoE from 0.17 on: a function of given experts and weights, and its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moe_routing.implementations._axolotl import kernel_module
from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.computes import Computes
from moe_routing.implementations.experts.adapter import run
from moe_routing.implementations.experts.models import MODELS, USUAL
from moe_routing.implementations.experts.unpacking import Named, unpacked
from moe_routing.implementations.on_device import OnDevice
from moe_routing.implementations.permutes import Permutes
from moe_routing.implementations.tensors import torch_tensor
from moe_routing.implementations.torch_expert_gradients import torch_expert_gradients
from moe_routing.reference import (
    ExpertsConfig,
    ExpertsInputs,
    PermutationConfig,
    Routes,
    SortedTokens,
    gate_up,
    gate_up_bias,
)
from moe_routing.reference.activations import PLAIN
from moe_routing.reference.formats import INPUT_FORMATS

if TYPE_CHECKING:
    from torch import Tensor

_PERMUTES = Permutes(align=(1,), empty_takes=("nothing",), absent=(False,))
_GROUPED = Computes(activations=tuple(PLAIN), gated=(True,), weight_on=("output",), absent=(False,))
_FUSED = Computes(
    activations=("silu", "relu"),
    gated=(True,),
    biases=(False,),
    weight_on=("output",),
    absent=(False,),
    hidden_multiple_of=64,
    width_multiple_of=64,
)
_ACTS = {"gelu-tanh": "gelu_tanh"}


class SonicMoeSort(OnDevice):
    """``route_and_group``, which sorts tokens by their expert for the grouped path."""

    def permute(self, config: PermutationConfig, routes: Routes) -> SortedTokens:
        """Call it on hidden states of one number. Errors: ``Unsupported``, ``BackendMissing``."""
        _PERMUTES.require(config, routes)
        grouping = kernel_module("sonicmoe", "nvfp4_lora")
        ids = torch_tensor("expert_ids", routes.expert_ids, dtype="int64", device=self.device)
        weights = torch_tensor("weights", routes.weights, dtype="float32", device=self.device)
        hidden = weights.new_zeros((routes.num_tokens, 1))
        _, starts, tokens, sorted_weights = grouping.route_and_group(
            hidden, ids, weights, config.num_experts
        )
        return SortedTokens(tokens=tokens, counts=starts.diff(), weights=sorted_weights)


class SonicMoeExperts(SonicMoeSort):
    """The function that axolotl registers as ``sonicmoe`` on a GPU; on a CPU its grouped path.

    The fused kernel, for 16 bits, comes from a hub. The grouped path
    (``grouped_moe_reference_forward``) is what quantized experts take, on any device where the
    weights are dense.
    """

    name = "sonicmoe"
    wraps = "axolotl"

    def __init__(self, device: str = "cpu") -> None:
        super().__init__(device)
        self._grouped = device == "cpu"
        self._computes = _GROUPED if self._grouped else _FUSED
        dtypes = tuple(INPUT_FORMATS) if self._grouped else ("bfloat16", "float16")
        self.claimed = Capabilities(permutes=_PERMUTES, computes=self._computes, dtypes=dtypes)

    def experts(self, config: ExpertsConfig, inputs: ExpertsInputs) -> Tensor:
        """Call the function. Errors: ``Unsupported``, ``BackendMissing``."""
        self._computes.require(config, inputs)
        if self._grouped:
            return run(_grouped(config, inputs, self.device), None, inputs, self.device)
        module: Any = MODELS[USUAL].build(config, inputs, self.device)
        fused = kernel_module("sonicmoe", "experts").sonicmoe_experts_forward_with_lora
        return run(fused, module, inputs, self.device)

    expert_gradients = torch_expert_gradients

    def unpacked(self, inputs: ExpertsInputs, found: Named) -> Named:
        """Return gradients by the names of ``inputs``, from those of gate and up in one."""
        return unpacked(inputs, found)


def _grouped(config: ExpertsConfig, inputs: ExpertsInputs, device: str) -> Any:
    """Return the grouped path with its weights, for hidden states, ids and weights."""
    forward = kernel_module("sonicmoe", "nvfp4_lora").grouped_moe_reference_forward
    arrays = (
        ("gate_up_proj", gate_up(inputs)),
        ("gate_up_proj_bias", gate_up_bias(inputs)),
        ("down_proj", inputs.down_weight),
        ("down_proj_bias", inputs.down_bias),
    )
    weights = [
        None if array is None else torch_tensor(name, array, dtype=inputs.dtype, device=device)
        for name, array in arrays
    ]
    settings = {"backend": "torch", "concat": True, "scaling1": 1.0, "scaling2": 1.0}
    settings["act"] = _ACTS.get(config.activation, config.activation)
    return lambda _, *given: forward(*given, *weights, None, None, config.num_experts, **settings)
