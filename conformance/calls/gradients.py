"""A case of gradients: a routing call, with the cotangent of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.routing import Case
from moe_routing.reference import RouterInputs
from moe_routing.reference.arrays import check_exact, check_shapes, freeze


@dataclass(frozen=True, kw_only=True, eq=False)
class GradientInputs(RouterInputs):
    """The inputs of a routing call, and the cotangent ``[T, E]`` of its weights.

    ``dtype`` represents the cotangent, so that a backend whose weights are of that dtype does not
    round it. Errors: ``ValueError``, as ``RouterInputs``.
    """

    cotangent: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        super().__post_init__()
        freeze(self, {"cotangent": "TE"})
        arrays = {"hidden": self.hidden, "gate_weight": self.gate_weight}
        shapes = {"hidden": "TH", "gate_weight": "EH", "cotangent": "TE"}
        check_shapes({**arrays, "cotangent": self.cotangent}, shapes)
        check_exact("cotangent", self.cotangent, self.dtype)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays that are present, by field name."""
        return {**super().arrays(), "cotangent": self.cotangent}

    @property
    def by_token(self) -> tuple[str, ...]:
        """The arrays that have a row for each token, besides those of a routing call."""
        return ("cotangent",)

    @property
    def router(self) -> RouterInputs:
        """The inputs of the routing call: the same arrays, which are not checked again."""
        made = object.__new__(RouterInputs)
        for name, value in vars(self).items():
            if name != "cotangent":
                object.__setattr__(made, name, value)
        return made


@dataclass(frozen=True, kw_only=True, eq=False)
class GradientCase(Case):
    """A call of ``gradients`` to judge at the backend's own experts."""

    kind: ClassVar[str] = "gradients"

    inputs: GradientInputs

    @classmethod
    def of(cls, case: Case, cotangent: npt.NDArray[np.float32]) -> GradientCase:
        """Return a routing case with a cotangent. Errors: ``ValueError``, as its inputs."""
        inputs = GradientInputs(**vars(case.inputs), cotangent=cotangent)
        return cls(config=case.config, inputs=inputs, recipe=case.recipe)

    def arguments(self, inputs: Any) -> tuple[Any, ...]:
        """Return what the method is called with: the cotangent comes apart."""
        return self.config, inputs.router, inputs.cotangent
