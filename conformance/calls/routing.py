"""A case of routing: the choice of experts, and their weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.reference import RouterConfig, RouterInputs


@dataclass(frozen=True, kw_only=True, eq=False)
class Case(AnyCase):
    """A routing call to check against the reference, and the recipe that made its numbers."""

    kind: ClassVar[str] = "routing"

    config: RouterConfig
    inputs: RouterInputs

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes by letter."""
        tokens, hidden = self.inputs.num_tokens, self.inputs.hidden_size
        return {"T": tokens, "H": hidden, "E": self.config.num_experts, "K": self.config.top_k}
