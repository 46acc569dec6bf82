"""A case of permutation: routes to be laid out by expert."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.reference import PermutationConfig, Routes


@dataclass(frozen=True, kw_only=True, eq=False)
class PermutationCase(AnyCase):
    """A call of ``permute`` to check against the laws of a permutation."""

    kind: ClassVar[str] = "permutation"

    config: PermutationConfig
    inputs: Routes

    @property
    def num_tokens(self) -> int:
        """T."""
        return self.inputs.num_tokens

    @property
    def dtype(self) -> str:
        """The dtype of the weights, which are carried and not computed with."""
        return "float32"

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes by letter."""
        routes = self.inputs
        return {"T": routes.num_tokens, "E": self.config.num_experts, "K": routes.top_k}
