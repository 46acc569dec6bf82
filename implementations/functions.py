"""Adapters of functions: what a function claims, and the call that takes a case to its routes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.claims import Claim
from moe_routing.implementations.protocol import require_gpu
from moe_routing.implementations.tensors import TorchInputs, torch_inputs, without_graph
from moe_routing.implementations.torch_gradients import torch_gradients
from moe_routing.reference import RouterConfig, RouterInputs

Call = Callable[[RouterConfig, TorchInputs], Any]
"""What calls a function: the configuration and the case's arrays in, its answer out."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One function of a package: its claims, the call, and how its arrays are made."""

    name: str
    wraps: str
    capabilities: Capabilities
    call: Call
    arrays: Callable[[RouterInputs, str], TorchInputs]
    needs_gpu: bool = False
    differentiable: bool = False


class FunctionRouter:
    """The adapter of one function."""

    def __init__(self, entry: Entry, device: str = "cpu") -> None:
        self.name, self.wraps, self.device = entry.name, entry.wraps, device
        self.methods = ("route", "gradients") if entry.differentiable else ("route",)
        self._entry = entry

    def capabilities(self) -> Capabilities:
        """Claim what the models that the function serves need."""
        return self._entry.capabilities

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Any:
        """Call the function. Errors: ``Unsupported``, ``BackendMissing``."""
        return self.prepare(config, inputs)()

    def prepare(self, config: RouterConfig, inputs: RouterInputs) -> Callable[[], Any]:
        """Lay out the inputs of a call. Errors: as ``route``."""
        self._entry.capabilities.require(config, inputs)
        if self._entry.needs_gpu:
            require_gpu(self.name, self.device)
        given = self._entry.arrays(inputs, self.device)
        return without_graph(lambda: self._entry.call(config, given))

    gradients = torch_gradients


def shares_of(config: RouterConfig) -> int:
    """Return how many groups each give a share of K; 0 without groups.

    Errors: ``ValueError`` for K that they do not divide, which models refuse where they are built.
    """
    count = 0 if config.groups is None else config.groups.count
    if count and config.top_k % count:
        raise ValueError(f"{config.top_k} experts cannot be taken from {count} groups alike")
    return count


class Family:
    """The functions of one package that are adapters, by name; ``function`` adds one.

    ``arrays`` makes the arrays of a case, torch's unless it is given; on ``devices`` other than
    the CPU none runs unless that says so, and with ``needs_gpu`` none runs on a CPU.
    """

    def __init__(
        self,
        name: str,
        wraps: str,
        *,
        arrays: Callable[[RouterInputs, str], TorchInputs] = torch_inputs,
        on_any_device: bool = False,
        needs_gpu: bool = False,
    ) -> None:
        self.name, self.wraps = name, wraps
        self._arrays, self._needs_gpu = arrays, needs_gpu
        self._on_any_device = on_any_device or needs_gpu
        self._entries: dict[str, Entry] = {}

    @property
    def members(self) -> tuple[str, ...]:
        """The names of its adapters, after the colon."""
        return tuple(self._entries)

    def add(
        self,
        name: str,
        call: Call,
        *claims: Claim,
        differentiable: bool = False,
        **capabilities: Any,
    ) -> None:
        """Add the adapter of a function under a name, with its claims and what goes with them.

        The gradients of one that is ``differentiable`` are judged as well.
        """
        self._entries[name] = Entry(
            name=f"{self.name}:{name}" if name else self.name,
            wraps=self.wraps,
            capabilities=Capabilities(claims=claims, **capabilities),
            call=call,
            arrays=self._arrays,
            needs_gpu=self._needs_gpu,
            differentiable=differentiable,
        )

    def function(
        self, *claims: Claim, **capabilities: Any
    ) -> Callable[[Call], Callable[..., FunctionRouter]]:
        """Return a decorator that makes a call the adapter of its name."""

        def added(call: Call) -> Callable[..., FunctionRouter]:
            name = getattr(call, "__name__", "")
            self.add(name, call, *claims, **capabilities)
            return self.made(name)

        return added

    def only(
        self, *claims: Claim, **capabilities: Any
    ) -> Callable[[Call], Callable[..., FunctionRouter]]:
        """Return a decorator that makes a call the one adapter of a package, named after that."""

        def added(call: Call) -> Callable[..., FunctionRouter]:
            self.add("", call, *claims, **capabilities)
            return self.made("")

        return added

    def made(self, name: str) -> Callable[..., FunctionRouter]:
        """Return what makes an adapter. Errors: ``AttributeError`` for a name that it has not."""
        if name not in self._entries:
            raise AttributeError(f"{self.name} has no adapter {name!r}")
        if self._on_any_device:
            return partial(FunctionRouter, self._entries[name])
        return lambda: FunctionRouter(self._entries[name])
