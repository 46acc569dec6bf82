"""A case of padding: a routing call, some of whose tokens are none."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.routing import Case
from moe_routing.reference import RouterInputs
from moe_routing.reference.padding import Padding, Told


@dataclass(frozen=True, kw_only=True, eq=False)
class PaddedInputs(RouterInputs):
    """The inputs of a routing call, and the fields of a ``Padding``.

    Errors: ``ValueError``, as ``RouterInputs`` and ``Padding``.
    """

    real: npt.NDArray[np.int64]
    told: Told = "valid"

    def __post_init__(self) -> None:
        super().__post_init__()
        made = Padding(real=self.real, told=self.told).real.view()
        made.flags.writeable = False
        object.__setattr__(self, "real", made)
        if made.shape != (self.num_tokens,):
            raise ValueError(
                f"Expected real of shape [{self.num_tokens}] but got shape {made.shape}"
            )

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays that are present, by field name."""
        return {**super().arrays(), "real": self.real}

    @property
    def by_token(self) -> tuple[str, ...]:
        """The arrays that have a row for each token, besides those of a routing call."""
        return ("real",)

    @property
    def padding(self) -> Padding:
        """The padding."""
        return Padding(real=np.array(self.real), told=self.told)

    @property
    def router(self) -> RouterInputs:
        """The inputs of the routing call: the same arrays, which are not checked again."""
        made = object.__new__(RouterInputs)
        for each in fields(RouterInputs):
            object.__setattr__(made, each.name, getattr(self, each.name))
        return made


@dataclass(frozen=True, kw_only=True, eq=False)
class PaddedCase(Case):
    """A call of ``route_padded``."""

    kind: ClassVar[str] = "padding"

    inputs: PaddedInputs

    @classmethod
    def of(cls, case: Case, padding: Padding) -> PaddedCase:
        """Return a routing case with padding. Errors: ``ValueError``, as its inputs."""
        given = {each.name: getattr(case.inputs, each.name) for each in fields(RouterInputs)}
        inputs = PaddedInputs(**given, real=padding.real, told=padding.told)
        return cls(config=case.config, inputs=inputs, recipe=case.recipe)

    def arguments(self, inputs: Any) -> tuple[Any, ...]:
        """Return what the method is called with: the padding comes apart."""
        return self.config, inputs.router, inputs.padding
