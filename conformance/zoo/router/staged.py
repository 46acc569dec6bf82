"""What the adapters of the zoo that are made of stages have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from moe_routing.implementations import Capabilities


class StagedWork:
    """One call in progress: a stage's value is computed when it is first read.

    ``right`` are the right stages of what ``who`` does, ``own`` those that it has in their place,
    ``memory`` what it stores between calls.
    """

    def __init__(
        self,
        who: str,
        right: Mapping[str, Callable[..., Any]],
        own: Mapping[str, Callable[..., Any]],
        memory: dict[Any, Any],
    ) -> None:
        self._who, self._right, self._own, self.memory = who, right, own, memory

    def __getattr__(self, stage: str) -> Any:
        right = vars(self).get("_right", {})
        if stage not in right:
            raise AttributeError(f"{vars(self).get('_who')} has no stage {stage!r}")
        with np.errstate(all="ignore"):
            value = (self._own.get(stage) or right[stage])(self)
        vars(self)[stage] = value
        return value

    def right(self, stage: str) -> Any:
        """Return what the right stage makes."""
        return self._right[stage](self)


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
