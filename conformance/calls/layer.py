"""A case of a layer: hidden states, a router, experts, and a shared expert."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.calls.routing import Case
from moe_routing.reference import LayerConfig, LayerInputs


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerCase(AnyCase):
    """A call of ``layer`` to check against the reference."""

    kind: ClassVar[str] = "layer"

    config: LayerConfig
    inputs: LayerInputs

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes by letter; ``F`` is the width of an expert, ``I`` of the shared one."""
        inputs, router = self.inputs, self.config.router
        sizes = {
            "T": inputs.num_tokens,
            "E": router.num_experts,
            "K": router.top_k,
            "H": inputs.hidden_size,
            "F": inputs.width,
        }
        return {**sizes, "I": inputs.shared_width} if inputs.shared_width else sizes

    @property
    def contained(self) -> Case:
        """The routing call that it contains."""
        return Case(config=self.config.router, inputs=self.inputs.router, recipe=self.recipe)
