"""Which answers of ranks rounding can explain: those of the whole layer (docs/spec/shards.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from moe_routing.conformance.judge.balls import Ball
from moe_routing.conformance.judge.expert_gradients import Learning
from moe_routing.conformance.judge.gradients import Judged
from moe_routing.conformance.judge.shards import Sharded
from moe_routing.reference.experts import OF_EXPERTS
from moe_routing.reference.formats import INPUT_FORMATS, Bools, Floats, Ids, Numbers

_EVERY = -1


@dataclass(frozen=True, eq=False)
class Together(Sharded):
    """What follows from a call of all ranks: ``home [T]`` is the rank that has each token.

    ``cotangent`` is that of a call of gradients.
    """

    home: Ids = field(kw_only=True)
    cotangent: Floats | None = field(default=None, kw_only=True)

    def own(self, rank: int) -> Bools:
        """Return which tokens a rank has, ``[T]``."""
        return np.asarray((self.home == rank) | (self.home == _EVERY))

    @property
    def shared(self) -> bool:
        """Whether every rank has all tokens."""
        return bool((self.home == _EVERY).any())

    @cached_property
    def batches(self) -> Ids:
        """The number of tokens of each rank, ``[R]``."""
        return np.array([int(self.own(rank).sum()) for rank in self.ranks])

    def answer(self, rank: int) -> Ball:
        """Return the permitted answers of a rank: the layer's output for its own tokens."""
        own, output = self.own(rank), self.layer.output
        return Ball(output.mid[own], output.rad[own])

    @cached_property
    def learning(self) -> Learning:
        """The same call of gradients in one place."""
        assert self.cotangent is not None, "a call of gradients has a cotangent"
        return Learning(self.config, self.inputs, self.cotangent, self.products)

    def judged(self, given: Sequence[Mapping[str, Numbers]]) -> dict[str, Judged]:
        """Judge the gradients of all ranks together, by name.

        Those of tokens are each rank's own, and those of an expert the sum over the ranks that
        have it, of which each has stored its own.
        """
        whole = {name: self._whole(name, given) for name in self.learning.permitted}
        there = {n: each for n, each in whole.items() if any(n in of for of in given)}
        judged = self.learning.judged(there)
        return {n: self._widened(each, given) for n, each in judged.items()}

    def _whole(self, name: str, given: Sequence[Mapping[str, Numbers]]) -> Floats:
        total = np.zeros(self.learning.permitted[name].mid.shape)
        for rank in self.ranks:
            if name not in given[rank]:
                continue
            if name in OF_EXPERTS:
                held = self.placement.holds(rank)
                total[held] += given[rank][name][held]
            elif not self.shared or rank == 0:
                total[self.own(rank)] = given[rank][name]
        return total

    def _widened(self, judged: Judged, given: Sequence[Mapping[str, Numbers]]) -> Judged:
        """Grant what storing the parts of an expert's replicas may have rounded off, each once."""
        several = self.placement.replicas > 1
        if judged.name not in OF_EXPERTS or not several.any():
            return judged
        step = INPUT_FORMATS[self.inputs.dtype].unit_roundoff
        parts = np.zeros(judged.answered.shape)
        for rank in self.ranks:
            held = self.placement.holds(rank) & several
            if judged.name in given[rank]:
                parts[held] += np.abs(given[rank][judged.name][held])
        ball = judged.permitted
        wider = Ball(ball.mid, ball.rad + parts * step / (1.0 - step))
        return replace(judged, permit=lambda: wider)

    def of_rank(self, rank: int, name: str, given: Mapping[str, Numbers]) -> Judged:
        """Judge a gradient of tokens that every rank has, as one rank answers it."""
        alone = self.learning.judged({n: given[n] for n in (name,) if n in given})
        return alone[name]
