"""The adapter protocol: the few methods through which the suite calls a backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from moe_routing.implementations.backend_errors import BackendLost as BackendLost
from moe_routing.implementations.backend_errors import BackendMissing as BackendMissing
from moe_routing.implementations.backend_errors import Lost as Lost
from moe_routing.implementations.backend_errors import missing as missing
from moe_routing.implementations.backend_errors import require_gpu as require_gpu
from moe_routing.implementations.balances import Balance
from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.differentiates import RouterGradients
from moe_routing.implementations.layouts import AnyRouting, RoutingMap
from moe_routing.reference import (
    BalanceConfig,
    BalanceInputs,
    CapacityConfig,
    ExpertGradients,
    ExpertsConfig,
    ExpertsInputs,
    LayerConfig,
    LayerInputs,
    LayerResult,
    Padding,
    PermutationConfig,
    Placement,
    Recorded,
    RouterConfig,
    RouterInputs,
    Routes,
    Routing,
    SharedExpertConfig,
    SharedExpertInputs,
)
from moe_routing.reference.layouts import Layout

METHODS = (
    "route",
    "dispatch",
    "shared_experts",
    "permute",
    "gradients",
    "experts",
    "expert_gradients",
    "layer",
    "drop",
    "shard",
    "route_padded",
    "balance",
    "replay",
    "on_ranks",
    "gradients_on_ranks",
)
"""The methods through which the suite calls a backend; an adapter has at least one."""

ON_RANKS = ("on_ranks", "gradients_on_ranks")
"""Those of ``METHODS`` that call all ranks at once."""

ON_RANK = "on_rank"
"""The method of an adapter of one rank of several, which ``--ranks`` runs in processes."""


def offers(adapter: object, method: str) -> bool:
    """Return whether an adapter has a method; an attribute ``methods`` may name those in use."""
    named = getattr(adapter, "methods", None)
    return callable(getattr(adapter, method, None)) and (named is None or method in named)


def offered(adapter: object) -> tuple[str, ...]:
    """Return the methods that the suite calls of an adapter."""
    return tuple(method for method in METHODS if offers(adapter, method))


@runtime_checkable
class Adapter(Protocol):
    """One backend, as the suite sees it: this, and at least one of ``METHODS``.

    ``name`` heads the report. An optional attribute ``wraps`` names the distribution
    package whose code runs, so that the report can show its version; ``methods`` names those of
    its methods that are to be called, where that is not all. Errors of every method:
    ``Unsupported`` for a call that the capabilities do not claim (``Capabilities.require``
    raises it for ``route``), ``BackendMissing`` where the package is absent.
    """

    name: str

    def capabilities(self) -> Capabilities:
        """Return what the backend claims; called often, so keep it cheap."""
        ...


@runtime_checkable
class RoutesTokens(Protocol):
    """A backend that chooses experts."""

    def route(self, config: RouterConfig, inputs: RouterInputs) -> AnyRouting:
        """Route ``inputs`` and return the backend's native arrays, unconverted."""
        ...


@runtime_checkable
class Closes(Protocol):
    """A backend that holds something to release, such as a process of its own."""

    def close(self) -> None:
        """Release it, at the end of a run; a later call may acquire it again."""
        ...


@runtime_checkable
class Prepares(Protocol):
    """A backend whose call can be prepared: ``route(...)`` is ``prepare(...)()``."""

    def prepare(self, config: RouterConfig, inputs: RouterInputs) -> Callable[[], AnyRouting]:
        """Check the call, lay its inputs on the device, and return what then routes them.

        It may be called again and again: benchmarks time that alone. Errors: as ``route``.
        """
        ...


@runtime_checkable
class Dispatches(Protocol):
    """A backend that picks softmax or sigmoid by itself."""

    def dispatch(self, config: RouterConfig, inputs: RouterInputs) -> AnyRouting:
        """Route as ``route`` does, without reading ``config.score``."""
        ...


@runtime_checkable
class SharesExperts(Protocol):
    """A backend that computes the shared experts' contribution."""

    def shared_experts(self, config: SharedExpertConfig, inputs: SharedExpertInputs) -> Any:
        """Return the contribution ``[T, H]``, or None where there is no shared expert."""
        ...


@runtime_checkable
class PermutesRoutes(Protocol):
    """A backend that lays routes out by expert."""

    def permute(self, config: PermutationConfig, routes: Routes) -> Layout:
        """Return the backend's native arrays in one of the four layouts, unconverted."""
        ...


@runtime_checkable
class RunsExperts(Protocol):
    """A backend that runs the chosen experts."""

    def experts(self, config: ExpertsConfig, inputs: ExpertsInputs) -> Any:
        """Return the weighted sum of the chosen experts' outputs, ``[T, H]``, unconverted."""
        ...


@runtime_checkable
class ShardsExperts(Protocol):
    """A backend that runs one rank's part of the experts."""

    def shard(
        self, config: ExpertsConfig, inputs: ExpertsInputs, placement: Placement, rank: int
    ) -> Any:
        """Return what a rank adds to the output, ``[T, H]``, unconverted.

        Experts are numbered over all ranks; those of other ranks hold NaN.
        """
        ...


@runtime_checkable
class RunsOnRank(Protocol):
    """A backend that runs on several ranks at once, in a process each: one of them.

    torch.distributed is initialised when it is called; the default group holds all ranks.
    """

    def on_rank(
        self, config: ExpertsConfig, inputs: ExpertsInputs, placement: Placement, rank: int
    ) -> Any:
        """Return the output ``[T, H]`` of this rank's own tokens, which are those of ``inputs``.

        Experts are numbered over all ranks; those of other ranks hold NaN.
        """
        ...


@runtime_checkable
class RunsOnRanks(Protocol):
    """A backend that runs on all ranks from one process, such as a mesh of devices."""

    def on_ranks(
        self, config: ExpertsConfig, batches: Sequence[ExpertsInputs], placement: Placement
    ) -> Sequence[Any]:
        """Return what ``on_rank`` of each rank would return, given the inputs of each."""
        ...


@runtime_checkable
class DifferentiatesOnRanks(Protocol):
    """A backend that gives the gradients of what it runs on all ranks."""

    def gradients_on_ranks(
        self,
        config: ExpertsConfig,
        batches: Sequence[ExpertsInputs],
        placement: Placement,
        cotangents: Sequence[npt.NDArray[np.float32]],
    ) -> Sequence[ExpertGradients]:
        """Return each rank's gradients of the sum, over all ranks, of output times cotangent.

        A rank has those of its own tokens, and of its experts over the tokens of all ranks.
        """
        ...


@runtime_checkable
class RunsLayers(Protocol):
    """A backend that runs a whole layer: its router, the chosen experts, its shared expert."""

    def layer(self, config: LayerConfig, inputs: LayerInputs) -> LayerResult:
        """Return the output ``[T, H]``, unconverted, and the routing, if the layer gives it."""
        ...


@runtime_checkable
class DifferentiatesRoutes(Protocol):
    """A backend that gives the gradients of its router."""

    def gradients(
        self, config: RouterConfig, inputs: RouterInputs, cotangent: npt.NDArray[np.float32]
    ) -> RouterGradients:
        """Return the gradients of ``sum w[t, k] * cotangent[t, ids[t, k]]``, and the routing.

        ``cotangent [T, E]`` is dense, since the ids are the backend's own.
        """
        ...


@runtime_checkable
class DifferentiatesExperts(Protocol):
    """A backend that gives the gradients of the experts that it runs."""

    def expert_gradients(
        self, config: ExpertsConfig, inputs: ExpertsInputs, cotangent: npt.NDArray[np.float32]
    ) -> ExpertGradients:
        """Return the gradients of the sum of the output times ``cotangent [T, H]``."""
        ...


@runtime_checkable
class ReplaysRoutes(Protocol):
    """A backend that runs recorded experts."""

    def replay(self, config: RouterConfig, inputs: RouterInputs, recorded: Recorded) -> AnyRouting:
        """Return the recorded experts, slot by slot, and their weights, unconverted."""
        ...


@runtime_checkable
class DropsRoutes(Protocol):
    """A backend whose experts have a capacity."""

    def drop(self, config: CapacityConfig, routes: Routes) -> Routing | RoutingMap:
        """Return the routes with -1 and a weight of 0 where an expert had no room for them."""
        ...


@runtime_checkable
class RoutesPadded(Protocol):
    """A backend that routes batches some of whose tokens are padding."""

    def route_padded(
        self, config: RouterConfig, inputs: RouterInputs, padding: Padding
    ) -> AnyRouting:
        """Return the routes of the tokens; padding has the sentinel that ``Pads`` claims."""
        ...


@runtime_checkable
class BalancesExperts(Protocol):
    """A backend that counts, and has a loss or a bias that balances its experts."""

    def balance(self, config: BalanceConfig, inputs: BalanceInputs) -> Balance:
        """Return what a step says of the balance of its experts; None for what there is not."""
        ...
