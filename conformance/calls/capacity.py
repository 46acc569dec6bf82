"""A case of capacity: routes, some of which an expert may have no room for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.reference import CapacityConfig, Routes


@dataclass(frozen=True, kw_only=True, eq=False)
class CapacityCase(AnyCase):
    """A call of ``drop`` to check against the rule that is claimed."""

    kind: ClassVar[str] = "capacity"

    config: CapacityConfig
    inputs: Routes

    @property
    def num_tokens(self) -> int:
        """T."""
        return self.inputs.num_tokens

    @property
    def dtype(self) -> str:
        """The dtype of the weights."""
        return "float32"

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes by letter."""
        routes = self.inputs
        return {"T": routes.num_tokens, "E": self.config.num_experts, "K": routes.top_k}
