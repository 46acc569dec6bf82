"""The trial of a shared-expert case."""

from __future__ import annotations

from dataclasses import dataclass

from moe_routing.conformance.calls.shared_experts import SharedCase
from moe_routing.conformance.trial.base import BaseTrial


@dataclass(frozen=True, eq=False)
class SharedTrial(BaseTrial[SharedCase]):
    """One shared-expert case for one adapter."""

    method: str = "shared_experts"
