"""sonic-moe's own experts: QuACK's grouped products in CuTe, between kernels of Triton."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache, partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from moe_routing.implementations.computes import Computes
from moe_routing.implementations.experts.unpacking import Named
from moe_routing.implementations.protocol import missing
from moe_routing.implementations.tensors import torch_tensor, without_graph
from moe_routing.reference import (
    ExpertsConfig,
    ExpertsInputs,
    down_weights,
    gate_up,
    gate_up_bias,
)
from moe_routing.reference.routes import ABSENT

if TYPE_CHECKING:
    from torch import Tensor

INSTALL = (
    "python -m pip install --no-deps sonic-moe==0.1.2.post1 quack-kernels==0.3.11 && "
    "python -m pip install nvidia-cutlass-dsl==4.4.2 apache-tvm-ffi einops"
)
_NEEDS = ("sonicmoe", "quack", "cutlass")
_ACTIVATIONS = {"silu": "swiglu", "gelu-tanh": "geglu"}

DTYPES = ("bfloat16", "float16")
COMPUTES = Computes(
    activations=tuple(_ACTIVATIONS),
    gated=(True,),
    weight_on=("output",),
    hidden_multiple_of=32,
    width_multiple_of=32,
    max_experts=8,
)
"""H and E are constants of its last kernel, which is compiled for each; rows are of 16 bytes."""


def runs_experts() -> bool:
    """Return whether all that the experts need is installed, without importing any of it."""
    return all(importlib.util.find_spec(name) is not None for name in _NEEDS)


def experts(config: ExpertsConfig, inputs: ExpertsInputs, device: str) -> Tensor:
    """Call ``moe_general_routing_inputs`` on the routes that are there. Errors: ``BackendMissing``.

    Gate and up take turns in its first weights, and all its weights are views ``[.., .., E]``.
    """
    import torch

    kernels, given = _kernels(), _tensors(inputs, device)
    ids = torch_tensor("expert_ids", inputs.expert_ids, dtype="int64", device=device)
    tokens, slots = torch.nonzero(ids != ABSENT, as_tuple=True)
    kinds: Any = importlib.import_module("sonicmoe.enums").ActivationType

    @without_graph
    def run() -> Any:
        return kernels.moe_general_routing_inputs(
            given["hidden"],
            given["weights"][tokens, slots],
            tokens.int(),
            ids[tokens, slots].int(),
            given["gate_up_proj"].permute(1, 2, 0),
            given.get("gate_up_proj_bias"),
            given["down_proj"].permute(1, 2, 0),
            given.get("down_proj_bias"),
            config.num_experts,
            torch.cuda.current_stream().cuda_stream,
            kinds(_ACTIVATIONS[config.activation]),
            not torch.is_grad_enabled(),
        )

    output: Tensor = run()[0]
    return output


def _tensors(inputs: ExpertsInputs, device: str) -> Named:
    """Return what it takes; of two biases both, or none."""
    arrays: dict[str, Any] = {
        "hidden": inputs.hidden,
        "gate_up_proj": gate_up(inputs, interleaved=True),
        "down_proj": down_weights(inputs),
    }
    if inputs.has_biases:
        experts, width = inputs.num_experts, inputs.width
        inner, outer = gate_up_bias(inputs, interleaved=True), inputs.down_bias
        none = np.zeros((experts, 2 * width), np.float32)
        arrays["gate_up_proj_bias"] = none if inner is None else inner
        none = np.zeros((experts, inputs.hidden_size), np.float32)
        arrays["down_proj_bias"] = none if outer is None else outer
    made = {
        name: torch_tensor(name, array, dtype=inputs.dtype, device=device)
        for name, array in arrays.items()
    }
    made["weights"] = torch_tensor("weights", inputs.weights, dtype="float32", device=device)
    return made


@cache
def _kernels() -> ModuleType:
    """Import the functions, which then take one tile size: to time all takes minutes a case."""
    try:
        functional = importlib.import_module("sonicmoe.functional")
    except ModuleNotFoundError as error:
        raise missing("sonic-moe", "sonicmoe", error, INSTALL) from error
    forward = importlib.import_module("sonicmoe.functional.forward")
    for name in ("gemm", "gemm_gated"):
        setattr(forward, name, partial(getattr(forward, name), tuned=False))
    gather: Any = importlib.import_module("sonicmoe.functional.reduction_over_k_gather")
    del gather.token_gather_sum_kernel.configs[1:]
    return functional
