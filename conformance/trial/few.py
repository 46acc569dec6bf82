"""Repeats: a batch whose tokens are mostly the same, judged by the few that differ.

A router treats each token apart, so equal tokens have equal bounds, and a batch of thousands has
those of a few tokens. What a backend answers for equal tokens mostly agrees bit for bit: each
answer is judged once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.generators.construct import take_tokens
from moe_routing.conformance.judge import Answer, Bounds, Verdict, judge
from moe_routing.conformance.judge.bounds import SelectionBounds
from moe_routing.conformance.judge.logits import LogitBounds
from moe_routing.reference import Stages
from moe_routing.reference.formats import Bools, Ids

LARGE = 2**11
"""The numbers in a call's logits from which it is worth looking for equal tokens."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Repeats:
    """The tokens of a case that differ, as a ``few``, and which of them each token is, ``[T]``."""

    few: Case
    which: Ids


def repeats(case: Case) -> Repeats | None:
    """Return the few tokens of a large case, or None where most differ, or where it is small."""
    tokens = case.inputs.num_tokens
    if tokens * case.config.num_experts < LARGE:
        return None
    arrays = [case.inputs.hidden, case.inputs.token_ids, case.inputs.logits]
    rows = _bytes([each for each in arrays if each is not None])
    _, first, which = np.unique(rows, return_index=True, return_inverse=True)
    if 2 * len(first) > tokens:
        return None
    order = np.argsort(first)
    return Repeats(few=take_tokens(case, first[order]), which=np.argsort(order)[which.ravel()])


def _bytes(arrays: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return one value for each row of all ``arrays``, equal where every bit is."""
    rows = [np.ascontiguousarray(each).reshape(len(each), -1) for each in arrays]
    bits = np.hstack([each.view(np.uint8) for each in rows])
    return np.ascontiguousarray(bits).view(f"V{max(1, bits.shape[1])}").ravel()


@dataclass(frozen=True, eq=False)
class SpreadBounds(Bounds):
    """The bounds of a case, each taken from those of its few tokens when it is read."""

    few: Bounds = field(kw_only=True)
    which: Ids = field(kw_only=True)

    @cached_property
    def reference(self) -> Stages:
        """The reference's stages."""
        whole, rows = self.few.reference, self.which
        return Stages(
            products=tuple(each[rows] for each in whole.products),
            logits=whole.logits[rows],
            operated=whole.operated[rows],
            scores=whole.scores[rows],
            biased=whole.biased[rows],
            group_scores=None if whole.group_scores is None else whole.group_scores[rows],
            kept=whole.kept[rows],
            competing=whole.competing[rows],
            expert_ids=whole.expert_ids[rows],
            gathered=whole.gathered[rows],
            renormalized=whole.renormalized[rows],
            weights=whole.weights[rows],
        )

    @property
    def blocks(self) -> list[slice]:
        """None: what costs is that of the few."""
        return []

    @cached_property
    def logits(self) -> LogitBounds:
        """The permitted logits."""
        return self.few.logits.rows(self.which)

    @cached_property
    def judged(self) -> Bools:
        """Which tokens ``[T]`` have defined scores."""
        return self.few.judged[self.which]

    @cached_property
    def from_reference(self) -> SelectionBounds:
        """The bounds of the later stages, from the reference's logits."""
        return self.few.from_reference.rows(self.which)

    @property
    def facts(self) -> BatchFacts:
        """What events are read off."""
        return BatchFacts(self.config, self.inputs, self.numerics, few=self.few)

    @cached_property
    def only_reference(self) -> Bools:
        """The tokens ``[T]`` for which the reference's set is the only right one."""
        return self.few.only_reference[self.which]


@dataclass(frozen=True, eq=False)
class BatchFacts(Bounds):
    """What events are read off a batch of few tokens: its inputs, and the bounds of the few.

    An event is a fact about the call, or about some token of it.
    """

    few: Bounds = field(kw_only=True)

    @property
    def differing(self) -> Bounds:
        """The bounds of the few, with inputs of as many rows."""
        return self.few

    @property
    def reference(self) -> Stages:
        """The reference's stages of the few."""
        return self.few.reference

    @property
    def blocks(self) -> list[slice]:
        """None: what costs is that of the few."""
        return []

    @property
    def logits(self) -> LogitBounds:
        """The permitted logits of the few."""
        return self.few.logits

    @property
    def judged(self) -> Bools:
        """Which of the few have defined scores."""
        return self.few.judged

    @property
    def from_reference(self) -> SelectionBounds:
        """The bounds of the later stages of the few."""
        return self.few.from_reference


@dataclass(frozen=True, kw_only=True, eq=False)
class SpreadVerdict(Verdict):
    """The verdict on a batch of few tokens: that on the rows that differ, for all like them."""

    part: Verdict

    def unlike(self) -> Iterator[Verdict]:
        """Yield the verdict on the rows that differ."""
        yield from self.part.parts()


def judge_spread(
    bounds: SpreadBounds, answer: Answer, logits: Literal["routed", "copy", "none"]
) -> Verdict:
    """Decide as ``judge`` does, once for equal answers to equal tokens."""
    rows, place = unlike_rows(bounds.which, answer)
    if 2 * len(rows) > len(place):
        return judge(bounds, answer, logits=logits)
    of_rows = replace(bounds, other=None, which=bounds.which[rows])
    part = judge(of_rows, rows_of(answer, rows), logits=logits)
    arrays = ("judged", "distinct", "in_range", "selection", "weights", "decided", "apart")
    return SpreadVerdict(
        bounds=bounds,
        answer=answer,
        **{name: getattr(part, name)[place] for name in arrays},
        logits=None if part.logits is None else part.logits[place],
        weight_bounds=part.weight_bounds.rows(place),
        routed=part.routed,
        part=part,
    )


def unlike_rows(which: Ids, answer: Answer) -> tuple[Ids, Ids]:
    """Return the rows to judge, and for every row which of these it is like.

    They are the first of each token, and one of each kind that differs.
    """
    arrays = _arrays(answer)
    first, like = _firsts(which)
    differ = np.zeros(len(which), dtype=bool)
    for array in arrays:
        bits = array.view(np.int64)
        differ |= (bits != bits[like]).any(axis=1)
    others = np.flatnonzero(differ)
    if len(others):
        kinds = _bytes([which[others], *(array[others] for array in arrays)])
        _, one, kind = np.unique(kinds, return_index=True, return_inverse=True)
        like[others] = others[one][kind.ravel()]
    rows = np.union1d(first, like)
    return rows, np.searchsorted(rows, like)


def _firsts(which: Ids) -> tuple[Ids, Ids]:
    """Return the first row of each token, and for every row the first of its token."""
    place = np.full(int(which.max()) + 1, -1)
    place[which[::-1]] = np.arange(len(which))[::-1]
    return place[place >= 0], place[which]


def _arrays(answer: Answer) -> list[npt.NDArray[Any]]:
    arrays = [answer.expert_ids, answer.weights]
    return arrays if answer.logits is None else [*arrays, answer.logits]


def right(verdict: Verdict, stages: Sequence[str]) -> Bools:
    """Return the tokens ``[T]`` whose answer is right at each of ``stages``."""
    fine: Bools = np.ones(len(verdict.judged), dtype=bool)
    if "selection" in stages:
        fine &= verdict.distinct & verdict.in_range & verdict.selection
    if "weights" in stages:
        fine &= verdict.weights.all(axis=1)
    if "logits" in stages and verdict.logits is not None:
        fine &= verdict.logits.all(axis=1)
    return fine


def rows_of(answer: Answer, rows: Ids) -> Answer:
    """Return some rows of an answer."""
    return replace(
        answer,
        weights=answer.weights[rows],
        expert_ids=answer.expert_ids[rows],
        logits=None if answer.logits is None else answer.logits[rows],
    )
