"""What the adapters of the zoo that are made of stages have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from moe_routing.implementations import Capabilities


class StagedAdapter:
    """An adapter of stages that can be replaced; ``memory`` is what it stores between calls."""

    def __init__(
        self, name: str, stages: Mapping[str, Callable[..., Any]], capabilities: Capabilities
    ) -> None:
        self.name = name
        self.memory: dict[Any, Any] = {}
        self._stages, self._capabilities = stages, capabilities

    def capabilities(self) -> Capabilities:
        """Return the claims that it was made with."""
        return self._capabilities
