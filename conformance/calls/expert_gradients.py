"""A case of experts' gradients: a call of experts, with the cotangent of its output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.experts import ExpertsCase
from moe_routing.reference import ExpertsInputs
from moe_routing.reference.arrays import check_exact, check_shapes, freeze


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpertGradientInputs(ExpertsInputs):
    """The inputs of a call of experts, and the cotangent ``[T, H]`` of its output.

    ``dtype`` represents the cotangent, so that a backend whose output is of that dtype does not
    round it. Errors: ``ValueError``, as ``ExpertsInputs``.
    """

    cotangent: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        super().__post_init__()
        freeze(self, {"cotangent": "TH"})
        shapes = {"hidden": "TH", "cotangent": "TH"}
        check_shapes({"hidden": self.hidden, "cotangent": self.cotangent}, shapes)
        check_exact("cotangent", self.cotangent, self.dtype)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays that are present, by field name."""
        return {**super().arrays(), "cotangent": self.cotangent}

    @property
    def forward(self) -> ExpertsInputs:
        """The inputs of the call of experts: the same arrays, which are not checked again."""
        made = object.__new__(ExpertsInputs)
        for name, value in vars(self).items():
            if name != "cotangent":
                object.__setattr__(made, name, value)
        return made


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpertGradientCase(ExpertsCase):
    """A call of ``expert_gradients`` to check against the reference."""

    kind: ClassVar[str] = "expert-gradients"

    inputs: ExpertGradientInputs

    @classmethod
    def of(cls, case: ExpertsCase, cotangent: npt.NDArray[np.float32]) -> ExpertGradientCase:
        """Return a call of experts with a cotangent. Errors: ``ValueError``, as its inputs."""
        inputs = ExpertGradientInputs(**vars(case.inputs), cotangent=cotangent)
        return cls(config=case.config, inputs=inputs, recipe=case.recipe)

    def arguments(self, inputs: Any) -> tuple[Any, ...]:
        """Return what the method is called with: the cotangent comes apart."""
        return self.config, inputs.forward, inputs.cotangent
