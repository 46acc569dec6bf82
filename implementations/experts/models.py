"""Experts modules of transformers' models, one for each way in which their weights lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from moe_routing.implementations.computes import Computes
from moe_routing.implementations.experts.unpacking import Named, unpacked
from moe_routing.implementations.protocol import BackendMissing
from moe_routing.implementations.tensors import parameter, torch_tensor
from moe_routing.reference import (
    ExpertsConfig,
    ExpertsInputs,
    down_weights,
    gate_up,
    gate_up_bias,
    up_weights,
)
from moe_routing.reference.activations import CLAMPED, PLAIN

if TYPE_CHECKING:
    from torch.nn import Module

VERSION = "5.23.0"
"""The release that the table was made from."""

_ACT2FN = {**{name: name for name in PLAIN}, "gelu-tanh": "gelu_pytorch_tanh"}


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model's experts module: its class, the settings that it reads, and how its weights lie.

    ``experts`` and ``width`` name the settings of E and F, ``activation`` that of the
    activation; ``clamp`` maps settings to fields of ``ExpertsConfig``. Without ``plain`` weights
    they are ``[E, in, out]``; ``interleaved``: gate and up take turns. Where the class's own
    forward indexes past its experts on an absent route, it ``overruns``.
    """

    name: str
    module: str
    config: str
    experts: str
    width: str
    activation: str = ""
    clamp: Mapping[str, str] = field(default_factory=dict)
    transposed: bool = False
    interleaved: bool = False
    biased: bool = False
    gated: bool = True
    overruns: bool = False

    @property
    def computes(self) -> Computes:
        """What the module computes: its activations, with or without a gate and biases."""
        plain = tuple(PLAIN) if self.activation else ("silu",)
        return Computes(
            activations=(CLAMPED,) if self.clamp else plain,
            gated=(self.gated,),
            biases=(False, True) if self.biased else (False,),
            weight_on=("output",),
        )

    def build(self, config: ExpertsConfig, inputs: ExpertsInputs, device: str) -> Module:
        """Build the module of a tiny model, with the case's weights. Errors: ``BackendMissing``."""
        import torch

        made, experts_class = self._classes()
        settings = {
            "hidden_size": inputs.hidden_size,
            "num_attention_heads": 1,
            "head_dim": 2,  # whatever H is: some configurations want an even one
            self.experts: config.num_experts,
            self.width: inputs.width,
            **{setting: getattr(config, name) for setting, name in self.clamp.items()},
        }
        if self.activation:
            settings[self.activation] = _ACT2FN[config.activation]
        with torch.device("meta"):
            module: Module = experts_class(made(**settings)).eval()
        for name, array in self._weights(inputs).items():
            tensor = torch_tensor(name, array, dtype=inputs.dtype, device=device)
            setattr(module, name, parameter(name, tensor))
        return module

    def unpacked(self, inputs: ExpertsInputs, found: Named) -> Named:
        """Return gradients by the names of ``inputs``, from those of the module's parameters."""
        lie = {"interleaved": self.interleaved, "transposed": self.transposed}
        return unpacked(inputs, found, **lie)

    def _weights(self, inputs: ExpertsInputs) -> dict[str, Any]:
        """Return the case's arrays as the module stores them; a bias that is missing is 0."""
        import numpy as np

        transposed, experts, width = self.transposed, inputs.num_experts, inputs.width
        found: dict[str, Any] = {"down_proj": down_weights(inputs, transposed=transposed)}
        if self.gated:
            joined = gate_up(inputs, interleaved=self.interleaved, transposed=transposed)
            found["gate_up_proj"] = joined
        else:
            found["up_proj"] = up_weights(inputs, transposed=transposed)
        if self.biased:
            inner = gate_up_bias(inputs, interleaved=self.interleaved)
            no_inner = np.zeros((experts, 2 * width), np.float32)
            no_outer = np.zeros((experts, inputs.hidden_size), np.float32)
            found["gate_up_proj_bias"] = no_inner if inner is None else inner
            found["down_proj_bias"] = no_outer if inputs.down_bias is None else inputs.down_bias
        return found

    def _classes(self) -> tuple[Callable[..., Any], type]:
        file, _, class_name = self.module.partition(".")
        try:
            auto = import_module("transformers.models.auto.configuration_auto")
            modeling = import_module(f"transformers.models.{file}.modeling_{file}")
            return auto.CONFIG_MAPPING[self.config], getattr(modeling, class_name)
        except (ImportError, AttributeError, KeyError) as error:
            raise BackendMissing(
                f"transformers has no {class_name} ({type(error).__name__}): "
                f"python -m pip install transformers=={VERSION}"
            ) from error


_CLAMP = {"swiglu_limit": "limit", "swiglu_alpha": "alpha"}
_LOCAL: dict[str, Any] = {"experts": "num_local_experts", "width": "intermediate_size"}

MODELS: dict[str, Model] = {
    each.name: each
    for each in (
        Model(
            name="mixtral",
            module="mixtral.MixtralExperts",
            config="mixtral",
            activation="hidden_act",
            **_LOCAL,
        ),
        Model(
            name="gpt_oss",
            module="gpt_oss.GptOssExperts",
            config="gpt_oss",
            clamp=_CLAMP,
            transposed=True,
            interleaved=True,
            biased=True,
            overruns=True,
            **_LOCAL,
        ),
        Model(
            name="openai_privacy_filter",
            module="openai_privacy_filter.OpenAIPrivacyFilterExperts",
            config="openai_privacy_filter",
            clamp=_CLAMP,
            transposed=True,
            biased=True,
            overruns=True,
            **_LOCAL,
        ),
        Model(
            name="aria",
            module="aria.AriaExperts",
            config="aria_text",
            experts="moe_num_experts",
            width="intermediate_size",
            transposed=True,
        ),
        Model(
            name="nemotron_h",
            module="nemotron_h.NemotronHExperts",
            config="nemotron_h",
            experts="n_routed_experts",
            width="moe_intermediate_size",
            activation="mlp_hidden_act",
            gated=False,
            overruns=True,
        ),
    )
}
"""The modules by the name of their model: the first stands for the 60 classes like it."""

USUAL = "mixtral"
"""The model whose name an adapter's name leaves out: gate and up in one array, no biases."""
