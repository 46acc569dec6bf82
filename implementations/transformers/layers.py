"""A model's whole MoE block: its own router, experts and shared expert, filled with a case."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.composes import Composes
from moe_routing.implementations.computes import Computes
from moe_routing.implementations.tensors import torch_layer_inputs
from moe_routing.implementations.transformers.adapter import TransformersRouter
from moe_routing.implementations.transformers.blocks import (
    block_classes,
    default_dtype,
    fill_block,
    keep_in_float32,
    settings_of,
)
from moe_routing.implementations.transformers.reading import READERS, completed
from moe_routing.implementations.transformers.rows import Row
from moe_routing.implementations.unsupported import Unsupported
from moe_routing.reference import LayerConfig, LayerInputs, LayerResult

if TYPE_CHECKING:
    from torch import Tensor

_COMPUTES = Computes(
    activations=("silu",), gated=(True,), biases=(False,), weight_on=("output",), absent=(False,)
)
_KINDS = {"shared_expert": "singular", "shared_experts": "plural", "shared_mlp": "mlp", "": "none"}


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """How the block of a row holds its experts, under which names and settings.

    ``width`` is the setting of F, ``shared`` the attribute of the shared expert (empty: there is
    none), ``shared_width`` the setting of its width, ``shared_count`` that of how many times F it
    is, and ``shared_gate`` the attribute of its gate.
    """

    width: str = "moe_intermediate_size"
    shared: str = ""
    shared_width: str = ""
    shared_count: str = ""
    shared_gate: str = ""

    @property
    def composes(self) -> Composes:
        """The shared expert that the block always has, or has not."""
        return Composes(shared=(_KINDS[self.shared],), gated=(bool(self.shared_gate),))

    def settings(self, inputs: LayerInputs) -> dict[str, Any]:
        """Return the settings of the widths of a case. Errors: ``Unsupported``."""
        found = {self.width: inputs.width, "hidden_act": "silu"}
        if self.shared_width:
            found[self.shared_width] = inputs.shared_width
        if self.shared_count:
            times, rest = divmod(inputs.shared_width, inputs.width)
            if rest:
                raise Unsupported(f"I={inputs.shared_width} is no multiple of F={inputs.width}")
            found[self.shared_count] = times
        return found


_DEEPSEEK = LayerRow(shared="shared_experts", shared_count="n_shared_experts")
_QWEN = LayerRow(
    shared="shared_expert",
    shared_width="shared_expert_intermediate_size",
    shared_gate="shared_expert_gate",
)
LAYERS: dict[str, LayerRow] = {
    "mixtral": LayerRow(width="intermediate_size"),
    "qwen3_moe": LayerRow(),
    "qwen2_moe": _QWEN,
    "qwen3_next": _QWEN,
    "deepseek_v3": _DEEPSEEK,
    "glm4_moe": _DEEPSEEK,
    "dots1": _DEEPSEEK,
}
"""The rows whose whole block is run, too, by name."""


class TransformersLayer(TransformersRouter):
    """A model's MoE block, whose router is held alone, and which is run whole as well."""

    def __init__(self, row: Row, device: str = "cpu") -> None:
        super().__init__(row, device)
        self._layer = LAYERS[row.name]
        self.methods = (*self.methods, "layer")
        self._capabilities = replace(
            self._capabilities, computes=_COMPUTES, composes=self._layer.composes
        )

    def capabilities(self) -> Capabilities:
        """Claim what the router claims, and the experts that the block has."""
        return self._capabilities

    def layer(self, config: LayerConfig, inputs: LayerInputs) -> LayerResult:
        """Run the block on a case. Errors: ``Unsupported``, ``BackendMissing``."""
        import torch

        self._capabilities.require_layer(config, inputs)
        block = self._block(config, inputs)
        given = torch_layer_inputs(inputs, self.device)
        with torch.no_grad():
            fill_block(self._row, block, given.router)
            self._fill(block, given.experts, given.shared)
            with _heard(block, self._row.router) as heard:
                output = block(given.router.hidden[None])
        output = output[0] if isinstance(output, tuple) else output
        read = READERS[self._row.reads](config.router, heard["returned"], heard["given"])
        routing = completed(read, config.router.top_k)
        return LayerResult(output=output.view_as(given.router.hidden), routing=routing)

    def _block(self, config: LayerConfig, inputs: LayerInputs) -> Any:
        """Build the whole block of a tiny model, its tensors unset."""
        import torch

        made, module, block_class = block_classes(self._row)
        settings = settings_of(self._row, config.router, inputs)
        settings |= self._layer.settings(inputs)
        with default_dtype(getattr(torch, inputs.dtype)), torch.device("meta"):
            model = made(**settings)
            model._experts_implementation = "eager"
            block = block_class(model, **self._row.arguments).eval()
        keep_in_float32(block.to_empty(device=self.device), module, inputs.dtype, self._row.at)
        return block

    def _fill(self, block: Any, experts: dict[str, Tensor], shared: dict[str, Tensor]) -> None:
        import torch

        joined = torch.cat([experts["gate_weight"], experts["up_weight"]], dim=1)
        block.experts.gate_up_proj.copy_(joined)
        block.experts.down_proj.copy_(experts["down_weight"])
        if not self._layer.shared:
            return
        module = getattr(block, self._layer.shared)
        for name in ("gate_proj", "up_proj", "down_proj"):
            getattr(module, name).weight.copy_(shared[name])
        if self._layer.shared_gate:
            getattr(block, self._layer.shared_gate).weight.copy_(shared["gate"])


@contextmanager
def _heard(block: Any, router: str) -> Iterator[dict[str, Any]]:
    """Collect what the router returned, and what the experts were given, in one call."""
    heard: dict[str, Any] = {}
    hooks = (
        block.get_submodule(router).register_forward_hook(
            lambda module, given, output: heard.update(returned=output)
        ),
        block.experts.register_forward_pre_hook(
            lambda module, given: heard.update(given=tuple(each.clone() for each in given))
        ),
    )
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()
