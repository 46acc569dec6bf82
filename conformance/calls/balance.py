"""A case of balance: logits and chosen experts of some layers, and a bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.reference.balance import BalanceConfig, BalanceInputs


@dataclass(frozen=True, kw_only=True, eq=False)
class BalanceCase(AnyCase):
    """A call of ``balance`` to check against the formulas that are claimed."""

    kind: ClassVar[str] = "balance"

    config: BalanceConfig
    inputs: BalanceInputs

    @property
    def num_tokens(self) -> int:
        """T."""
        return self.inputs.num_tokens

    @property
    def dtype(self) -> str:
        """The dtype of the logits."""
        return "float32"

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes by letter."""
        inputs = self.inputs
        return {
            "L": inputs.num_layers,
            "T": inputs.num_tokens,
            "E": inputs.num_experts,
            "K": inputs.top_k,
        }
