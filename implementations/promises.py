"""Promises: what a backend keeps beyond what the specification demands of everybody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from moe_routing.implementations.permitted import Closed
from moe_routing.reference.checks import require_choice, require_flag, shown

Ties = Literal["free", "lowest"]
Slots = Literal["free", "descending"]


@dataclass(frozen=True, kw_only=True)
class Promises(Closed):
    """Stricter contracts, for whoever relies on them; without arguments none.

    ``ties="lowest"``: of experts with the same logit and the same bias, the lower id is selected.
    ``slots="descending"``: a token's slots come by descending selection score, as sorted top-k
    has them. ``same_bits``: a token's answer has the same bits alone and in any batch.
    ``served_by``: the kernels that serve what is claimed; an answer then names its own in
    ``kernel``, and another is a fallback. Errors: ``ValueError`` naming the field.
    """

    ties: Ties = "free"
    slots: Slots = "free"
    same_bits: bool = False
    served_by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_choice("Promises.ties", self.ties, get_args(Ties))
        require_choice("Promises.slots", self.slots, get_args(Slots))
        require_flag("Promises.same_bits", self.same_bits)
        names = self.served_by
        if not isinstance(names, tuple) or not all(isinstance(each, str) for each in names):
            raise ValueError(
                "Expected Promises.served_by to be a tuple of names of kernels but got "
                f"{shown(names)}: write ('fused_topk',), for example"
            )

    def declared(self) -> list[str]:
        """Return the promises that are made, in words."""
        words = {
            "ties to the lower id": self.ties == "lowest",
            "slots in descending order": self.slots == "descending",
            "the same bits in any batch": self.same_bits,
            f"served by {' or '.join(self.served_by)}": bool(self.served_by),
        }
        return [word for word, holds in words.items() if holds]


SORTED = Promises(slots="descending")
"""What ``torch.topk`` documents of its slots, unless it is called with ``sorted=False``."""
