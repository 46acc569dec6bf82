"""Renormalised from two on: a rule for K of 2 and more, which leaves a single expert's weight."""

from __future__ import annotations

from dataclasses import dataclass

from moe_routing.implementations.permitted import Closed
from moe_routing.reference import Renormalize
from moe_routing.reference.checks import require_part


@dataclass(frozen=True)
class FromTwo(Closed):
    """What a claim says of a router that renormalises by ``rule``, but only where K > 1.

    A value of ``Claim.renormalize``; ``Capabilities`` holds it as two claims of the same name, one
    of K = 1 that does not renormalise. Errors: ``ValueError`` where ``rule`` is no ``Renormalize``.
    """

    rule: Renormalize

    def __post_init__(self) -> None:
        require_part("FromTwo.rule", self.rule, Renormalize)
