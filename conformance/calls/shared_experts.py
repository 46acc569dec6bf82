"""A case of shared experts: what they add to every token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.reference import SharedExpertConfig, SharedExpertInputs


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedCase(AnyCase):
    """A shared-expert call to check against the reference."""

    kind: ClassVar[str] = "shared-experts"

    config: SharedExpertConfig
    inputs: SharedExpertInputs

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes by letter; ``I`` is the width of the MLP."""
        return {**super().sizes, "I": len(self.inputs.up_proj)}
