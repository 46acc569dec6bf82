"""Cases whose inputs are routes: what is given, and their sizes."""

from __future__ import annotations

from dataclasses import dataclass

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.reference import Routes


@dataclass(frozen=True, kw_only=True, eq=False)
class RoutesCase(AnyCase):
    """A call that is given routes, and no hidden states."""

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
