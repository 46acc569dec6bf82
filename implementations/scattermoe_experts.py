"""axolotl's ScatterMoE experts: the function that it registers in transformers' interface.

Its kernels are Triton's: they want a GPU, or Triton's interpreter (``TRITON_INTERPRET=1``), which
takes a tenth of a second a call and has no bfloat16.
"""

from __future__ import annotations

import importlib
import os
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from moe_routing.implementations._axolotl import has_kernel_file, kernel_module
from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.experts.adapter import run
from moe_routing.implementations.experts.models import MODELS, USUAL
from moe_routing.implementations.experts.unpacking import Named
from moe_routing.implementations.on_device import OnDevice
from moe_routing.implementations.protocol import BackendMissing
from moe_routing.implementations.torch_expert_gradients import torch_expert_gradients
from moe_routing.reference import ExpertGradients, ExpertsConfig, ExpertsInputs
from moe_routing.reference.formats import INPUT_FORMATS

if TYPE_CHECKING:
    from torch import Tensor

_FOLDER = "scattermoe_lora"
_INTERPRETED = {"max_experts": 16, "max_tokens": 64}
"""What the interpreter gets through in a tenth of a second."""
_COMPILED = {
    "products": "tf32",
    "hidden_multiple_of": 16,
    "width_multiple_of": 32,
    "max_experts": 8,
    "max_top_k": 2,
}
"""On a GPU H, F, E and K are constants of its kernels: each new one is compiled for seconds."""


def runs_experts(device: str) -> bool:
    """Return whether the installed axolotl has the function, and the kernels can run here."""
    return has_kernel_file(_FOLDER, "experts") and (device != "cpu" or _interpreted())


class ScatterMoeExperts(OnDevice):
    """``scattermoe_experts_forward``, for the weights of a model.

    On a GPU its float32 products are made in tf32, as its kernels ask for.
    """

    wraps = "axolotl"

    def __init__(self, model: str = USUAL, device: str = "cpu", **claims: Any) -> None:
        self.name = "scattermoe" if model == USUAL else f"scattermoe@{model}"
        super().__init__(device)
        self._model = MODELS[model]
        on_cpu = device == "cpu"
        limits: dict[str, Any] = _INTERPRETED if on_cpu else _COMPILED
        self._computes = replace(self._model.computes, absent=(False,), **limits | claims)
        dtypes = ("float32", "float16") if on_cpu else tuple(INPUT_FORMATS)
        self.claimed = Capabilities(computes=self._computes, dtypes=dtypes)

    def experts(self, config: ExpertsConfig, inputs: ExpertsInputs) -> Tensor:
        """Call the function. Errors: ``Unsupported``, ``BackendMissing``."""
        self._computes.require(config, inputs)
        forward = _kernels(self.device).scattermoe_experts_forward
        module = self._module(config, inputs)
        with _uncompiled() if self.device == "cpu" else nullcontext():
            return run(forward, module, inputs, self.device)

    def _module(self, config: ExpertsConfig, inputs: ExpertsInputs) -> Any:
        return self._model.build(config, inputs, self.device)

    def expert_gradients(
        self, config: ExpertsConfig, inputs: ExpertsInputs, cotangent: npt.NDArray[np.float32]
    ) -> ExpertGradients:
        """Go back through the function. Errors: as ``experts``."""
        with _uncompiled() if self.device == "cpu" else nullcontext():
            return torch_expert_gradients(self, config, inputs, cotangent)

    def unpacked(self, inputs: ExpertsInputs, found: Named) -> Named:
        """Return gradients by the names of ``inputs``, from those of the module's parameters."""
        return self._model.unpacked(inputs, found)


gpt_oss = partial(ScatterMoeExperts, "gpt_oss")


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def _kernels(device: str) -> ModuleType:
    """Return the module of the function, ready for the interpreter on a CPU."""
    if device == "cpu" and not _interpreted():
        raise BackendMissing(
            "scattermoe's experts need a GPU (--device cuda) or TRITON_INTERPRET=1"
        )
    kernels = kernel_module(_FOLDER, "experts")
    if device == "cpu":
        _count_in_tensors(kernel_module(_FOLDER, "kernels.ops"), "_compute_expert_block")
        lora = kernel_module(_FOLDER, "kernels.lora_ops")
        for name in ("_compute_expert_block_lora", "_compute_expert_block_lora_dX"):
            _count_in_tensors(lora, name)
    return kernels


def _count_in_tensors(kernels: Any, name: str) -> None:
    """Have the interpreter hand a kernel the number of an expert as the compiler does.

    A loop counts in Python's ints there, on which the kernel calls ``to``.
    """
    block = getattr(kernels, name)
    if isinstance(block, _Counting):
        return
    setattr(kernels, name, _Counting(block))


class _Counting:
    """A kernel's function whose first argument, a number, becomes a tensor."""

    def __init__(self, block: Any) -> None:
        self._block = block

    def __call__(self, number: Any, *given: Any, **named: Any) -> Any:
        tl: Any = importlib.import_module("triton.language")
        return self._block(tl.full((), number, tl.int64), *given, **named)


def _uncompiled() -> Any:
    """Return a context in which ``torch.compile`` runs functions as they are."""
    import torch

    return torch.compiler.set_stance("force_eager")
