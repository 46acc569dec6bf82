"""Bounds of the stages between logits and weights, each made when it is first read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.judge.intervals import Interval
from moe_routing.conformance.judge.quotients import ScoreBounds
from moe_routing.conformance.judge.scores import (
    competing_bounds,
    operated_bounds,
    score_bounds,
)
from moe_routing.conformance.judge.selection import certain_groups, possible_groups
from moe_routing.conformance.judge.softmax import softmax_bounds
from moe_routing.implementations import Numerics
from moe_routing.reference import RouterConfig
from moe_routing.reference.formats import FLOAT32, Bools, FloatFormat, Ids


@dataclass(frozen=True, kw_only=True, eq=False)
class SelectionBounds:
    """Bounds of the stages between ``logits`` and weights, all ``[T, E]``.

    ``judged [T]`` are the tokens that have defined scores, ``form`` is that of the scores. Some
    rows of a ``source`` take from it what it has made, or makes for them.
    """

    config: RouterConfig
    selection_bias: npt.NDArray[np.float32] | None
    numerics: Numerics
    form: FloatFormat
    logits: Interval
    judged: Bools
    source: tuple[SelectionBounds, Ids | slice] | None = None

    @property
    def group_format(self) -> FloatFormat:
        """The format that group scores are summed in."""
        return self.form if self.selection_bias is None else FLOAT32

    @cached_property
    def operated(self) -> Interval:
        """The logits after the logit op."""
        if self.source is not None:
            source, which = self.source
            return source.operated.rows(which)
        with np.errstate(all="ignore"):
            return operated_bounds(self.config, self.logits, self.form)

    @cached_property
    def scores(self) -> ScoreBounds:
        """The scores."""
        if self.source is not None:
            source, which = self.source
            return source.scores.rows(which)
        with np.errstate(all="ignore"):
            return score_bounds(self.config, self.operated, self.form, self.numerics)

    @cached_property
    def competing(self) -> Interval:
        """What competes in selection. Errors: ``JudgeError``."""
        if self.source is not None:
            source, which = self.source
            return source.competing.rows(which)
        with np.errstate(all="ignore"):
            made = competing_bounds(self.scores, self.selection_bias, self.form, self.numerics)
            return made.checked(self.judged)

    @cached_property
    def kept_groups(self) -> tuple[Bools, Bools]:
        """The groups that certainly are kept, and those that may be, ``[T, count]``."""
        groups = self.config.groups
        assert groups is not None
        certain, _ = certain_groups(self.competing, groups, self.form)
        return certain, possible_groups(self.competing, groups, self.form)

    def operated_at(self, expert_ids: Ids) -> Interval:
        """Return the logits of ``expert_ids [T, K]`` after the logit op."""
        if self._has("operated"):
            return self.operated.at(expert_ids)
        with np.errstate(all="ignore"):
            return operated_bounds(self.config, self.logits.at(expert_ids), self.form)

    def scores_at(self, expert_ids: Ids) -> ScoreBounds:
        """Return the scores of ``expert_ids [T, K]``, without making those of all experts."""
        if self._has("scores"):
            return self.scores.at(expert_ids)
        with np.errstate(all="ignore"):
            if self.config.score == "softmax":
                return softmax_bounds(self.operated, self.form, at=expert_ids)
            operated = self.operated_at(expert_ids)
            return score_bounds(self.config, operated, self.form, self.numerics)

    def rows(self, which: Ids | slice) -> SelectionBounds:
        """Take the rows ``which``, which may repeat; what is read of them is made of all, once."""
        return replace(self._part(which), source=(self, which))

    def alone(self, which: Ids | slice) -> SelectionBounds:
        """Take the rows ``which``; what is read of them is made of them alone, or of the source."""
        return self.rows(which) if self._has("competing") else self._part(which)

    def _has(self, name: str) -> bool:
        """Whether a stage has been made already, here or by the source."""
        return name in self.__dict__ or (self.source is not None and self.source[0]._has(name))

    def _part(self, which: Ids | slice) -> SelectionBounds:
        logits, judged = self.logits.rows(which), self.judged[which]
        return replace(self, logits=logits, judged=judged, source=None)
