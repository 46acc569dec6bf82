"""A case of replay: a routing call, with a record of which experts ran."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.routing import Case
from moe_routing.reference import Recorded, RouterInputs
from moe_routing.reference.formats import Ids

RECORD = ("recorded_ids", "recorded_weights", "rows", "layer")
"""The fields of the inputs that are the record's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReplayInputs(RouterInputs):
    """The inputs of a routing call, and the fields of a ``Recorded``.

    Errors: ``ValueError``, as ``RouterInputs`` and ``Recorded``.
    """

    recorded_ids: Ids
    recorded_weights: npt.NDArray[np.float32] | None = None
    rows: Ids | None = None
    layer: int | None = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        made = Recorded(
            expert_ids=self.recorded_ids,
            weights=self.recorded_weights,
            rows=self.rows,
            layer=self.layer,
        )
        for name, value in zip(RECORD, (made.expert_ids, made.weights, made.rows), strict=False):
            object.__setattr__(self, name, value)

    @property
    def recorded(self) -> Recorded:
        """The record: the same arrays, which are not checked again."""
        return Recorded.unchecked(
            expert_ids=self.recorded_ids,
            weights=self.recorded_weights,
            rows=self.rows,
            layer=self.layer,
        )

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays that are present, by field name."""
        held = {name: getattr(self, name) for name in RECORD[:3]}
        return {**super().arrays(), **{n: x for n, x in held.items() if x is not None}}

    @property
    def by_token(self) -> tuple[str, ...]:
        """The arrays that have a row for each token, besides those of a routing call."""
        return RECORD[:2] if self.rows is None else ("rows",)

    def by_expert(self, kept: Ids) -> dict[str, Any]:
        """Return the arrays that name experts, of which only ``kept`` are left."""
        ids, size = self.recorded_ids, max(int(self.recorded_ids.max(initial=0)) + 1, 1)
        if size > len(self.gate_weight):  # unread slots, which name none
            return {"recorded_ids": ids}
        place = np.arange(size) % len(kept)
        place[kept[kept < size]] = np.flatnonzero(kept < size)
        return {"recorded_ids": np.where(ids < 0, ids, place[np.maximum(ids, 0)])}

    @property
    def router(self) -> RouterInputs:
        """The inputs of the routing call: the same arrays, which are not checked again."""
        made = object.__new__(RouterInputs)
        for each in fields(RouterInputs):
            object.__setattr__(made, each.name, getattr(self, each.name))
        return made


@dataclass(frozen=True, kw_only=True, eq=False)
class ReplayCase(Case):
    """A call of ``replay``. Errors: ``ValueError`` where the record does not fit the call."""

    kind: ClassVar[str] = "replay"

    inputs: ReplayInputs

    def __post_init__(self) -> None:
        self.inputs.recorded.check_fits(self.config, self.inputs)

    @classmethod
    def of(cls, case: Case, recorded: Recorded) -> ReplayCase:
        """Return a routing case with a record. Errors: ``ValueError``, as its inputs."""
        inputs = ReplayInputs(
            **{each.name: getattr(case.inputs, each.name) for each in fields(RouterInputs)},
            recorded_ids=recorded.expert_ids,
            recorded_weights=recorded.weights,
            rows=recorded.rows,
            layer=recorded.layer,
        )
        return cls(config=case.config, inputs=inputs, recipe=case.recipe)

    def arguments(self, inputs: Any) -> tuple[Any, ...]:
        """Return what the method is called with: the record comes apart."""
        return self.config, inputs.router, inputs.recorded
