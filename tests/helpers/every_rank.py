"""All adapters of one rank in one: a method is called by the adapter's name and its own."""

from __future__ import annotations

from importlib.metadata import distributions
from typing import Any

from moe_routing.implementations import Capabilities
from moe_routing.implementations.registry import load_rank, ranked


def installed() -> list[str]:
    """The adapters of one rank whose libraries are there."""
    found = {distribution.name for distribution in distributions()}
    return [name for name in ranked() if getattr(load_rank(name), "wraps", None) in found]


class Every:
    """Adapters that share an import of their libraries."""

    name = "every"

    def __init__(self) -> None:
        self._adapters = {name: load_rank(name) for name in installed()}

    def capabilities(self) -> Capabilities:
        return Capabilities()

    def preload(self) -> None:
        for adapter in self._adapters.values():
            adapter.preload()  # type: ignore[attr-defined]

    def on_rank(self, *call: Any) -> Any:
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        adapter, _, method = name.partition(" ")
        if not method:
            raise AttributeError(name)
        return getattr(self._adapters[adapter], method)
