"""The trials of layers that run on several ranks at once, and the boundary of their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from moe_routing.conformance.calls.expert_gradients import ExpertGradientCase
from moe_routing.conformance.calls.ranks import RankGradientCase, RanksCase
from moe_routing.conformance.judge.gradients import Judged
from moe_routing.conformance.judge.ranks import Together
from moe_routing.conformance.trial.base import BaseTrial
from moe_routing.conformance.trial.boundary import Malformed
from moe_routing.conformance.trial.expert_gradients import read as read_gradients
from moe_routing.conformance.trial.experts import read
from moe_routing.reference.formats import Bools, Floats, Numbers

CaseT = TypeVar("CaseT", bound=RanksCase)
_OF_TOKENS = ("hidden", "weights")


class _OnRanks(BaseTrial[CaseT]):
    """What both trials have: what follows from the call, and an answer of each rank."""

    @property
    def together(self) -> Together:
        """What follows from the call, under the products that the adapter claims."""
        return self.once(together_of, self.capabilities.computes.products)

    @property
    def facts(self) -> Together:
        """The value that events are read from."""
        return self.once(together_of)

    def _natives(self) -> Sequence[Any]:
        """Return the answers of the ranks, unread. Errors: ``Raised``, ``Malformed``."""
        native, ranks = self.native, len(self.together.ranks)
        if not isinstance(native, (list, tuple)) or len(native) != ranks:
            got = f"{len(native)}" if isinstance(native, (list, tuple)) else "none of a list"
            raise Malformed(f"{self.method} returned {got} answers, but should return {ranks}")
        return native


@dataclass(frozen=True, eq=False)
class RanksTrial(_OnRanks[RanksCase]):
    """One call of all ranks, for one adapter."""

    method: str = "on_ranks"

    @cached_property
    def answers(self) -> list[Floats]:
        """What each rank answers of its own tokens, in float64. Errors: as ``Malformed`` says."""
        return [self._read(rank, native) for rank, native in enumerate(self._natives())]

    def _read(self, rank: int, native: Any) -> Floats:
        try:
            return read(native, self.case.of_rank(rank))
        except Malformed as error:
            raise Malformed(f"rank {rank}: {error}") from error

    def wrong(self, rank: int) -> Bools:
        """Return which of a rank's answers rounding cannot explain, over all tokens ``[T, H]``."""
        own = self.together.own(rank)
        found = np.zeros((own.size, self.case.inputs.hidden_size), bool)
        found[own] = ~self.together.answer(rank).contains(self.answers[rank])
        return found

    @property
    def allowance_used(self) -> float:
        """The greatest share of a radius that an answer used, where there is one."""
        if "answers" not in vars(self):
            return 0.0
        return max((self._used(rank) for rank in self.together.ranks), default=0.0)

    def _used(self, rank: int) -> float:
        ball = self.together.answer(rank)
        open_ = ball.decided & (ball.rad > 0.0)
        off = np.abs(self.answers[rank][open_] - ball.mid[open_]) / ball.rad[open_]
        return float(off.max(initial=0.0))


@dataclass(frozen=True, eq=False)
class RankGradientsTrial(_OnRanks[RankGradientCase]):
    """One call of the gradients of all ranks, for one adapter."""

    method: str = "gradients_on_ranks"

    @cached_property
    def received(self) -> list[dict[str, Numbers]]:
        """The gradients of each rank, by name. Errors: ``Raised``, ``Malformed``."""
        return [self._read(rank, native) for rank, native in enumerate(self._natives())]

    def _read(self, rank: int, native: Any) -> dict[str, Numbers]:
        case, inputs = self.case.of_rank(rank), self.case.inputs
        asked = ExpertGradientCase.of(case, inputs.cotangent[inputs.own(rank)])
        try:
            return read_gradients(native, asked)
        except Malformed as error:
            raise Malformed(f"rank {rank}: {error}") from error

    @cached_property
    def judged(self) -> dict[str, Judged]:
        """The judge's verdict on the gradients of all ranks together. Errors: as ``received``."""
        return self._claimed(self.together.judged(self.received))

    def _claimed(self, judged: dict[str, Judged]) -> dict[str, Judged]:
        claimed = self.capabilities.computes.gradients
        return {n: each for n, each in judged.items() if n in claimed or each.given}

    def of_rank(self, rank: int) -> dict[str, Judged]:
        """Return the verdict on a rank's own gradients, where all ranks have the same tokens."""
        given = self.received[rank]
        names = [n for n in _OF_TOKENS if n in self.together.learning.permitted]
        return self._claimed({n: self.together.of_rank(rank, n, given) for n in names})


def together_of(case: RanksCase, products: str = "float32") -> Together:
    """Return what follows from a case."""
    inputs = case.inputs
    cotangent = getattr(inputs, "cotangent", None)
    return Together(
        case.config,
        inputs.whole,
        inputs.placement,
        products,
        home=inputs.home,
        cotangent=None if cotangent is None else cotangent.astype(np.float64),
    )
