"""What the two axolotl adapters share: loading the kernel folders, and the modules they read."""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from moe_routing.implementations.claims import Claim, GroupRule
from moe_routing.implementations.permitted import ANY
from moe_routing.implementations.protocol import BackendMissing
from moe_routing.implementations.tensors import TorchInputs, torch_shared_inputs
from moe_routing.implementations.torch_layer import swiglu
from moe_routing.reference import (
    Renormalize,
    RouterConfig,
    RouterInputs,
    SharedExpertConfig,
    SharedExpertInputs,
)

if TYPE_CHECKING:
    from torch import Tensor

INSTALL = "python -m pip install --no-deps axolotl==0.19.0"
_NOTES = {"sonicmoe": "; its seven routing functions were last in 0.16.1"}
"""What else to know before installing, by the kernel folder."""

PATCH_NEEDS = "pydantic accelerate transformers peft addict"
SHARED_ATTRIBUTE = {"singular": "shared_expert", "plural": "shared_experts", "mlp": "shared_mlp"}


@cache
def kernel_module(folder: str, module: str) -> ModuleType:
    """Import a module of one of axolotl's kernel folders, without executing ``axolotl``.

    ``axolotl/__init__`` and the packages below it need dozens of requirements; the folder
    ``integrations/kernels/libs/<folder>`` is imported alone, as a package of a private
    name. Errors: ``BackendMissing`` with the command that installs what is missing.
    """
    name = f"_axolotl_{folder}"
    package = ModuleType(name)
    package.__path__ = [str(_kernel_folder(folder))]
    sys.modules.setdefault(name, package)
    return _imported(f"{name}.{module}")


@cache
def expert_parallel_module(module: str) -> ModuleType:
    """Import a module of axolotl's expert parallelism in the same way. Errors: the same."""
    name = "_axolotl_expert_parallel"
    package = ModuleType(name)
    package.__path__ = [str(_folder("expert_parallel", INSTALL))]
    sys.modules.setdefault(name, package)
    return _imported(f"{name}.{module}")


def install_line(folder: str) -> str:
    """Return the command that installs the newest release, and what to know of this folder."""
    return INSTALL + _NOTES.get(folder, "")


def has_kernel_file(folder: str, module: str) -> bool:
    """Return whether the installed axolotl has this module; True where none is installed."""
    if importlib.util.find_spec("axolotl") is None:
        return True
    return (_kernel_folder(folder) / f"{module}.py").is_file()


@cache
def sonicmoe_patch() -> ModuleType:
    """Import sonicmoe's ``patch`` by its real name: it reads other parts of axolotl.

    The package above it imports a plugin, and with it trainers and models, which take seconds;
    an empty one stands for it meanwhile. Errors: ``BackendMissing`` with the command that installs
    what is missing.
    """
    package, folder = "axolotl.integrations.kernels", _kernel_folder("sonicmoe").parents[1]
    bare = ModuleType(package)
    bare.__path__ = [str(folder)]
    absent = sys.modules.setdefault(package, bare) is bare
    try:
        return _imported(f"{package}.libs.sonicmoe.patch", needs=PATCH_NEEDS)
    finally:
        if absent:
            del sys.modules[package]


def plain_claim(**axes: Any) -> Claim:
    """Return the claim of a renormalising softmax router that LoRA may adapt, with ``axes``."""
    return Claim.plain(**{"renormalize": (Renormalize(),), "gate_delta": (False, True), **axes})


def sigmoid_claims(name: str) -> tuple[Claim, Claim]:
    """Return what the sigmoid families need: DeepSeek-V3 with GLM, and MiniMax-M2."""
    deepseek_v3 = plain_claim(
        name=name,
        score=("sigmoid",),
        groups=(None, GroupRule(top=(2,), fill=(-math.inf,))),
        renormalize=(None, Renormalize(eps=1e-20)),
        scale=ANY,
        selection_bias=("none", "gate"),
    )
    minimax_m2 = plain_claim(
        name=name,
        score=("sigmoid",),
        selection_bias=("none", "block"),
    )
    return deepseek_v3, minimax_m2


def moe_block(
    inputs: RouterInputs,
    given: TorchInputs,
    *,
    gate: dict[str, Any] | None = None,
    block: dict[str, Any] | None = None,
) -> SimpleNamespace:
    """Return a block with its gate, carrying these attributes, the bias and the LoRA delta."""
    base = SimpleNamespace(weight=given.gate_weight, **(gate or {}))
    whole = SimpleNamespace(**(block or {}))
    if given.selection_bias is not None:
        if inputs.selection_bias_on == "statics":
            base.moe_statics = _Statics(given.selection_bias)
        else:
            owner = base if inputs.selection_bias_on == "gate" else whole
            owner.e_score_correction_bias = given.selection_bias
    whole.gate = with_lora(base, given.gate_delta)
    return whole


def softmax_gate(config: RouterConfig) -> dict[str, Any]:
    """Return the gate attributes of the plain softmax families (Qwen, OLMoE, Mixtral)."""
    return {
        "top_k": config.top_k,
        "num_experts": config.num_experts,
        "norm_topk_prob": config.renormalize is not None,
    }


def flagged_block(config: RouterConfig) -> dict[str, Any]:
    """Return the block attributes of DeepSeek-V3, GLM, Mistral 4 and MiniMax-M2."""
    if config.renormalize == Renormalize():
        # MiniMax-M2 always renormalises and never scales: it has no flags that say so.
        return {"top_k": config.top_k}
    groups = config.groups
    grouped = {"n_group": groups.count, "topk_group": groups.kept} if groups else {}
    return {
        "top_k": config.top_k,
        "n_routed_experts": config.num_experts,
        "norm_topk_prob": config.renormalize is not None,
        "routed_scaling_factor": config.scale,
        **grouped,
    }


def with_lora(layer: SimpleNamespace, delta: Tensor | None) -> SimpleNamespace:
    """Wrap ``layer`` as peft does where its weight ``[E, H]`` has the LoRA ``delta``.

    It has rank E: ``-1 * (-I @ delta)`` is ``delta`` to the bit at every magnitude, and has
    the wrong sign wherever the scaling is forgotten or applied twice.
    """
    import torch

    if delta is None:
        return layer
    up = -torch.eye(len(delta), dtype=delta.dtype, device=delta.device)
    return SimpleNamespace(
        base_layer=layer,
        weight=layer.weight,
        lora_A={"default": SimpleNamespace(weight=delta)},
        lora_B={"default": SimpleNamespace(weight=up)},
        scaling={"default": -1.0},
        active_adapters=["default"],
    )


def shared_block(
    config: SharedExpertConfig, inputs: SharedExpertInputs, device: str
) -> tuple[SimpleNamespace, Tensor]:
    """Return a block with its shared expert as ``config`` places it, and the hidden states."""
    from torch.nn import functional as F

    given = torch_shared_inputs(inputs, device)
    block = SimpleNamespace()
    if config.kind != "none":
        setattr(block, SHARED_ATTRIBUTE[config.kind], lambda hidden: swiglu(hidden, given))
    if config.gated:
        block.shared_expert_gate = lambda hidden: F.linear(hidden, given["gate"])
    return block, given["hidden"]


def shared_output(
    module: ModuleType, config: SharedExpertConfig, inputs: SharedExpertInputs, device: str
) -> Tensor | None:
    """Call a module's ``_compute_shared_expert`` on a block with this shared expert."""
    import torch

    block, hidden = shared_block(config, inputs, device)
    with torch.no_grad():
        output: Tensor | None = module._compute_shared_expert(block, hidden)
    return output


class _Statics:
    """The module that adds the bias in Ernie 4.5; the parameter is ``[1, E]`` there."""

    def __init__(self, bias: Tensor) -> None:
        self.e_score_correction_bias = bias.unsqueeze(0)

    def __call__(self, scores: Tensor) -> Tensor:
        return scores + self.e_score_correction_bias.squeeze()


def _kernel_folder(folder: str) -> Path:
    return _folder(f"kernels/libs/{folder}", install_line(folder))


def _folder(below: str, install: str) -> Path:
    """Return a folder below ``axolotl/integrations``."""
    spec = importlib.util.find_spec("axolotl")
    if spec is None:
        raise BackendMissing(f"axolotl is not installed: {install}")
    for root in spec.submodule_search_locations or ():
        path = Path(root, "integrations", *below.split("/"))
        if path.is_dir():
            return path
    raise BackendMissing(f"the installed axolotl has no {below}: {install}")


def _imported(name: str, needs: str = "") -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        lacking = (error.name or "a module").partition(".")[0]
        if lacking in ("axolotl", name.partition(".")[0]):
            raise BackendMissing(f"the installed axolotl has no {error.name}: {INSTALL}") from error
        fix = f"python -m pip install {needs if lacking in needs.split() else lacking}"
        raise BackendMissing(f"axolotl needs {lacking}, which is missing: {fix}") from error
