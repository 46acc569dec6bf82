"""Routes: which experts the tokens of a batch go to, and with what weight, once they are chosen.

Source: ``docs/spec/permutation.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.reference.arrays import freeze, present
from moe_routing.reference.formats import Bools, Ids
from moe_routing.reference.quick import some

ABSENT = -1
"""The expert id of an absent route."""

_SHAPES = {"expert_ids": "TK", "weights": "TK"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Routes:
    """The routes of T tokens: K slots each, a route in every slot.

    Shapes: ``expert_ids [T, K]`` int64 and ``weights [T, K]`` float32, read-only. Route
    ``t * K + k`` is slot k of token t. An expert id of -1 says that the route is absent: its
    weight is 0, and it is never computed. One expert may hold several slots of a token.
    Errors: ``ValueError`` naming the array, the first bad value and the rule.
    """

    expert_ids: Ids
    weights: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        freeze(self, _SHAPES, integers=("expert_ids",))
        self._check("expert_ids", self.expert_ids < ABSENT, "use ids >= 0, or -1 where absent")
        lost = (self.expert_ids == ABSENT) & (self.weights != 0)
        self._check("weights", lost, "expert_ids is -1 there, and an absent route weighs 0")

    @property
    def num_tokens(self) -> int:
        """T, the number of tokens."""
        return len(self.expert_ids)

    @property
    def top_k(self) -> int:
        """K, the number of slots of a token."""
        return int(self.expert_ids.shape[1])

    @property
    def num_routes(self) -> int:
        """T * K, absent routes included."""
        return self.expert_ids.size

    @property
    def experts(self) -> Ids:
        """The expert of every route, ``[T * K]``; -1 where it is absent."""
        return self.expert_ids.reshape(-1)

    @property
    def present(self) -> Bools:
        """Whether each route is there, ``[T * K]``."""
        there: Bools = self.experts != ABSENT
        return there

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays by field name."""
        return present(self, _SHAPES)

    def check_below(self, num_experts: int) -> None:
        """Raise ``ValueError`` for the first expert id that is not below ``num_experts``."""
        rule = f"ids are below num_experts={num_experts}; an absent route is {ABSENT}"
        self._check("expert_ids", self.expert_ids >= num_experts, rule)

    def _check(self, name: str, bad: Bools, rule: str) -> None:
        if some(bad):
            t, k = (int(i) for i in np.argwhere(bad)[0])
            value = getattr(self, name)[t, k].item()
            raise ValueError(f"Cannot have {name}[{t}, {k}]={value}: {rule}")
