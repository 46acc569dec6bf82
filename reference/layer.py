"""A layer: its router, the experts that are chosen, and its shared expert.

Source: ``docs/spec/layer.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.reference.arrays import check_exact, check_shapes, freeze, present
from moe_routing.reference.checks import require_part
from moe_routing.reference.config import RouterConfig
from moe_routing.reference.experts import Array, ExpertsConfig, ExpertsInputs, experts
from moe_routing.reference.formats import Ids
from moe_routing.reference.inputs import RouterInputs
from moe_routing.reference.routing import route
from moe_routing.reference.shared_experts import (
    SharedExpertConfig,
    SharedExpertInputs,
    shared_contribution,
)

OF_EXPERTS = {
    "experts_gate": "gate_weight",
    "experts_up": "up_weight",
    "experts_down": "down_weight",
    "experts_gate_bias": "gate_bias",
    "experts_up_bias": "up_bias",
    "experts_down_bias": "down_bias",
}
"""The arrays of the routed experts, with their names in ``ExpertsInputs``."""

OF_SHARED = {
    "shared_gate_proj": "gate_proj",
    "shared_up_proj": "up_proj",
    "shared_down_proj": "down_proj",
    "shared_gate": "gate",
}
"""The arrays of the shared expert, with their names in ``SharedExpertInputs``."""

_SHAPES = {
    "experts_gate": "EFH",
    "experts_up": "EFH",
    "experts_down": "EHF",
    "experts_gate_bias": "EF",
    "experts_up_bias": "EF",
    "experts_down_bias": "EH",
    "shared_gate_proj": "IH",
    "shared_up_proj": "IH",
    "shared_down_proj": "HI",
    "shared_gate": "1H",
}


@dataclass(frozen=True, kw_only=True)
class LayerConfig:
    """What a layer computes: how it routes, what its experts are, and its shared expert.

    Errors: ``ValueError`` naming the field.
    """

    router: RouterConfig
    experts: ExpertsConfig
    shared: SharedExpertConfig = field(default_factory=lambda: SharedExpertConfig(kind="none"))

    def __post_init__(self) -> None:
        require_part("router", self.router, RouterConfig)
        require_part("experts", self.experts, ExpertsConfig)
        require_part("shared", self.shared, SharedExpertConfig)
        for part in (self.experts, self.shared):
            replace(part)  # checks one that was made without checks
        if self.experts.num_experts != self.router.num_experts:
            raise ValueError(
                f"Cannot have experts.num_experts={self.experts.num_experts} with "
                f"router.num_experts={self.router.num_experts}: they are the same experts"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerInputs(RouterInputs):
    """The arrays of one call of a layer: those of its router, its experts and its shared expert.

    Those of the router have the names that they have in ``RouterInputs``; ``experts_gate``,
    ``experts_up`` (both ``[E, F, H]``), ``experts_down [E, H, F]`` and ``experts_gate_bias``,
    ``experts_up_bias`` (``[E, F]``) and ``experts_down_bias [E, H]`` are the experts' of
    ``ExpertsInputs``, ``shared_gate_proj``, ``shared_up_proj`` (``[I, H]``),
    ``shared_down_proj [H, I]`` and ``shared_gate [1, H]`` the shared expert's of
    ``SharedExpertInputs``, all three or none of the first. Errors: ``ValueError``, as there.
    """

    experts_up: Array
    experts_down: Array
    experts_gate: Array | None = None
    experts_gate_bias: Array | None = None
    experts_up_bias: Array | None = None
    experts_down_bias: Array | None = None
    shared_gate_proj: Array | None = None
    shared_up_proj: Array | None = None
    shared_down_proj: Array | None = None
    shared_gate: Array | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        freeze(self, _SHAPES)
        own = present(self, _SHAPES)
        both = {"hidden": self.hidden, "gate_weight": self.gate_weight}
        check_shapes({**both, **own}, {"hidden": "TH", "gate_weight": "EH", **_SHAPES})
        for name, array in own.items():
            check_exact(name, array, self.dtype)
        if self.experts_gate_bias is not None and self.experts_gate is None:
            raise ValueError("Cannot have experts_gate_bias without experts_gate: nothing reads it")
        self._check_shared()

    def _check_shared(self) -> None:
        """Raise ``ValueError`` where a part of the shared expert is missing."""
        matrices = ("shared_gate_proj", "shared_up_proj", "shared_down_proj")
        there = [name for name in matrices if getattr(self, name) is not None]
        if there and len(there) < len(matrices):
            lacking = ", ".join(name for name in matrices if name not in there)
            raise ValueError(f"Cannot have {there[0]} without {lacking}: give all three or none")
        if self.shared_gate is not None and not there:
            raise ValueError("Cannot have shared_gate without shared_gate_proj: nothing reads it")

    @property
    def width(self) -> int:
        """F, the number of rows of an expert's inner product."""
        return int(self.experts_up.shape[1])

    @property
    def shared_width(self) -> int:
        """I, the number of rows of the shared expert's inner product; 0 where there is none."""
        return 0 if self.shared_up_proj is None else len(self.shared_up_proj)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays that are present, by field name."""
        return {**super().arrays(), **present(self, _SHAPES)}

    @property
    def router(self) -> RouterInputs:
        """The inputs of the routing call: the same arrays, which are not checked again."""
        made = object.__new__(RouterInputs)
        for name, value in vars(self).items():
            if name not in _SHAPES:
                object.__setattr__(made, name, value)
        return made

    @property
    def shared(self) -> SharedExpertInputs | None:
        """The inputs of the shared expert's call, or None where there is none."""
        if self.shared_up_proj is None:
            return None
        return SharedExpertInputs(hidden=self.hidden, dtype=self.dtype, **self._parts(OF_SHARED))

    def experts_at(self, expert_ids: Ids, weights: Array) -> ExpertsInputs:
        """Return the inputs of the experts' call at these routes.

        Routing weights may have more bits than ``dtype`` holds: such a call is said to be of
        float32, whose values all of its arrays are.
        """
        return ExpertsInputs(
            hidden=self.hidden,
            expert_ids=expert_ids,
            weights=weights,
            dtype="float32",
            **self._parts(OF_EXPERTS),
        )

    def _parts(self, names: dict[str, str]) -> dict[str, Any]:
        return {theirs: getattr(self, own) for own, theirs in names.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerResult:
    """A layer's answer, native arrays of any library: ``output [T, H]``, and its routing.

    The routing is that of the same call, in any layout that ``route`` may return; None where a
    layer does not say, and then it is held to the routes that its router should have taken.
    """

    output: Any
    routing: Any = None


def layer(config: LayerConfig, inputs: LayerInputs) -> LayerResult:
    """Return the routed experts' weighted sum plus the shared expert's output, ``[T, H]`` float64.

    Routing weights are rounded to float32 before the experts are weighted. Errors:
    ``ValueError`` where ``inputs`` do not fit ``config``.
    """
    routing = route(config.router, inputs.router)
    weights = np.asarray(routing.weights).astype(np.float32)
    ids = np.asarray(routing.expert_ids, np.int64)
    output = experts(config.experts, inputs.experts_at(ids, weights))
    check_shared(config, inputs)
    if (shared := inputs.shared) is not None:
        output = output + shared_contribution(config.shared, shared)
    return LayerResult(output=output, routing=routing)


def check_shared(config: LayerConfig, inputs: LayerInputs) -> None:
    """Raise ``ValueError`` where a shared expert is configured and missing, or the reverse."""
    if (config.shared.kind == "none") != (inputs.shared_up_proj is None):
        given = "None" if inputs.shared_up_proj is None else "an array"
        raise ValueError(
            f"Expected shared_up_proj to be {'None' if given != 'None' else 'given'} for "
            f"shared.kind={config.shared.kind!r} but got {given}"
        )
