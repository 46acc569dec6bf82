"""A case of experts: hidden states, routes, and the weights of every expert."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.reference import ExpertsConfig, ExpertsInputs


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpertsCase(AnyCase):
    """A call of ``experts`` to check against the reference."""

    kind: ClassVar[str] = "experts"

    config: ExpertsConfig
    inputs: ExpertsInputs

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes by letter; ``F`` is the width of an expert."""
        inputs = self.inputs
        return {
            "T": inputs.num_tokens,
            "E": inputs.num_experts,
            "K": inputs.top_k,
            "H": inputs.hidden_size,
            "F": inputs.width,
        }
