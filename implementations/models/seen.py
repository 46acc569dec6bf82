"""What was seen of a model in one pass: values that a judge reads, and what cannot be judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from moe_routing.implementations.capabilities import Numerics
from moe_routing.implementations.computes import Products
from moe_routing.reference import (
    ExpertsConfig,
    ExpertsInputs,
    LayerConfig,
    LayerInputs,
    RouterConfig,
    RouterInputs,
    Routing,
    SharedExpertConfig,
    SharedExpertInputs,
)

Part = Literal["routing", "experts", "layer", "router gradients", "experts gradients"]
"""What is judged of a block."""

PARTS: tuple[Part, ...] = ("routing", "experts", "layer", "router gradients", "experts gradients")
"""The parts, in the order of a pass."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """Something of one call: ``path`` is the module's, ``block`` that of the MoE block.

    ``tokens`` are the numbers of its rows in the batch; ``notes`` what is to be said of it.
    ``adapter`` is the name of the shipped adapter that runs the same, ``device`` where it ran.
    """

    path: str
    block: str
    tokens: Any
    adapter: str = ""
    device: str = "cpu"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenRouting(Seen):
    """A routing: hidden states and the module's own tensors, and what came out, natively.

    ``cotangent [T, E]`` and ``gradients``, by the names of ``Gradients``, are those of the
    backward pass; one that should have come and did not is None. Without a cotangent none are
    judged, for the reason ``ungraded``, or because the weights are ``detached`` from their graph.
    """

    config: RouterConfig
    inputs: RouterInputs
    routing: Routing
    logits: Literal["routed", "copy", "none"]
    numerics: Numerics = field(default_factory=Numerics)
    cotangent: Any = None
    gradients: Mapping[str, Any] = field(default_factory=dict)
    ungraded: str = ""
    detached: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenExperts(Seen):
    """A call of experts at the routes that they really got, and their output ``[T, H]``.

    ``inputs`` have the dtype of the hidden states; their weights may have more bits. ``copied
    [T, K]`` are the weights of routes whose expert returns what it is given, 0 elsewhere;
    ``products`` says what float32 products may be made in.
    """

    config: ExpertsConfig
    inputs: ExpertsInputs
    output: Any
    products: Products = "float32"
    copied: Any = None


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenExpertGradients(Seen):
    """Gradients of a call of experts, by the names of ``ExpertsInputs``, with their cotangent."""

    config: ExpertsConfig
    inputs: ExpertsInputs
    cotangent: Any
    gradients: Mapping[str, Any]
    products: Products = "float32"


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenLayer(Seen):
    """A block's output ``[T, H]``: ``factor`` times what its experts returned, and the shared."""

    routed: Any
    factor: float
    divisor: float
    shared: SharedExpertConfig
    inputs: SharedExpertInputs | None
    dtype: str
    output: Any


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenWhole(Seen):
    """A block's output ``[T, H]``, of which no routing or no call of its experts was seen."""

    config: LayerConfig
    inputs: LayerInputs
    numerics: Numerics
    output: Any


@dataclass(frozen=True, kw_only=True)
class Unjudged:
    """A part of a block, or a module, that is not judged, and why."""

    path: str
    block: str
    part: Part | None
    reason: str
