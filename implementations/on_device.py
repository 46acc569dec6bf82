"""What adapters of torch have in common: a device, what they claim, and a call made before it runs.

An adapter of several protocols inherits from one class for each, and states its claims itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.torch_gradients import torch_gradients
from moe_routing.reference import RouterConfig, RouterInputs

Answer = TypeVar("Answer")
"""The layout of a router's answer."""


class OnDevice:
    """An adapter that is made for a device; ``claimed`` is what it claims."""

    claimed: Capabilities

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    def capabilities(self) -> Capabilities:
        """Return what the class claims."""
        return self.claimed


class PreparedRouter(OnDevice, Generic[Answer]):
    """A router whose ``prepare`` makes all that a call needs; gradients are torch's autograd."""

    def prepare(self, config: RouterConfig, inputs: RouterInputs) -> Callable[[], Answer]:
        """Return the call, ready to run. Errors: ``Unsupported``, ``BackendMissing``."""
        raise NotImplementedError

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Answer:
        """Run a prepared call. Errors: as ``prepare``."""
        return self.prepare(config, inputs)()

    gradients = torch_gradients
