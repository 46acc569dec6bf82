"""Routers to compare: right ones that differ as they may, wrong ones, one that claims little."""

from __future__ import annotations

from typing import Any

from moe_routing.conformance.zoo import HONEST, MUTANTS
from moe_routing.conformance.zoo.router.router import StagedRouter
from moe_routing.implementations import BackendLost, Capabilities, Claim
from moe_routing.reference import RouterConfig, RouterInputs


def lowest() -> Any:
    return StagedRouter("lowest", {}, Capabilities())


def highest() -> Any:
    return HONEST["ties-to-the-highest"].adapter()


def wide() -> Any:
    return HONEST["float64-inside"].adapter()


def narrow() -> Any:
    return StagedRouter("narrow", {}, Capabilities(dtypes=("float32",)))


def scale_twice() -> Any:
    return MUTANTS["scale-twice"].adapter()


def sigmoid() -> Any:
    return StagedRouter("sigmoid", {}, Capabilities(claims=(Claim.plain(score=("sigmoid",)),)))


def softmax() -> Any:
    return StagedRouter("softmax", {}, Capabilities(claims=(Claim.plain(),)))


class Raises(StagedRouter):
    """Raises on batches of more than eight tokens."""

    def __init__(self) -> None:
        super().__init__("raises", {}, Capabilities())

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Any:
        if inputs.num_tokens > 8:
            raise RuntimeError("too many tokens")
        return super().route(config, inputs)


class Wavers(StagedRouter):
    """Breaks ties to the highest expert in its first calls, to the lowest in all later ones."""

    def __init__(self) -> None:
        super().__init__("wavers", {}, Capabilities())
        self.first, self.calls = highest(), 0

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Any:
        self.calls += 1
        router = self.first if self.calls <= 4 else super()
        return router.route(config, inputs)


class Lost(StagedRouter):
    """Says of every call that the process which runs its backend has ended."""

    def __init__(self) -> None:
        super().__init__("lost", {}, Capabilities())

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Any:
        raise BackendLost("it has ended", "crash")


class NoRoute:
    name = "no-route"

    def capabilities(self) -> Capabilities:
        return Capabilities()

    def permute(self, config: Any, routes: Any) -> Any:
        raise NotImplementedError
