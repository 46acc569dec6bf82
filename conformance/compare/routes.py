"""The routes of several routers for one case, token by token, and what explains differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.checking.answered import Answered
from moe_routing.conformance.compare.routers import Router
from moe_routing.conformance.judge import Bounds, Verdict
from moe_routing.conformance.judge.selection import chosen_mask
from moe_routing.conformance.trial.few import SpreadBounds, right
from moe_routing.conformance.trial.memo import CaseMemo
from moe_routing.implementations import Numerics
from moe_routing.reference.formats import Bools, Floats, Ids
from moe_routing.reference.groups import group_scores

Cause = tuple[str, str]
"""Why a case is worth showing: ``("differ", "ties")``, or a router's letter and a stage."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Routes:
    """What the routers answered to one case, judged: one verdict each, or None without answer."""

    case: Case
    bounds: Bounds
    routers: Sequence[Router]
    answered: Sequence[Answered]
    verdicts: Sequence[Verdict | None]

    @cached_property
    def compared(self) -> bool:
        """Whether at least two routers answered, so that there is something to compare."""
        return sum(each is not None for each in self.verdicts) > 1

    @cached_property
    def refused(self) -> Bools:
        """The tokens whose answer the judge refuses, ``[A, T]``; none of a call without answer."""
        tokens = self.case.num_tokens
        stages = ("logits", "selection", "weights")
        found = [np.zeros(tokens, bool) if v is None else ~right(v, stages) for v in self.verdicts]
        return np.array(found, dtype=bool).reshape(len(found), tokens)

    @cached_property
    def sets(self) -> Ids:
        """The experts of each answer in ascending order, ``[answers, T, K]``."""
        ids = [each.answer.expert_ids for each in self.verdicts if each is not None]
        return np.sort(np.array(ids), axis=2)

    @cached_property
    def unlike(self) -> Bools:
        """The tokens ``[T]`` for which not all answers are the same set of experts."""
        if not self.compared:
            return np.zeros(self.case.num_tokens, dtype=bool)
        return np.asarray((self.sets != self.sets[:1]).any(axis=(0, 2)))

    @cached_property
    def right(self) -> Bools:
        """The tokens ``[T]`` whose every answer is permitted."""
        return np.asarray(~self.refused.any(axis=0))

    @cached_property
    def differ(self) -> Bools:
        """The tokens ``[T]`` that the routers route differently.

        Either by their experts, or since the judge permits one answer and refuses another.
        """
        refused = self.refused[[each is not None for each in self.verdicts]]
        if not self.compared:
            return self.unlike
        return np.asarray(self.unlike | (refused.any(axis=0) & ~refused.all(axis=0)))

    @cached_property
    def undefined(self) -> Bools:
        """The differing tokens ``[T]`` to which the specification gives no one answer: NaN."""
        return np.asarray(self.unlike & self.right & ~self.bounds.judged)

    @cached_property
    def ties(self) -> Bools:
        """The tokens ``[T]`` that differ by experts or groups that tie in the exact reference."""
        due = np.asarray(self.unlike & self.right & self.bounds.judged)
        return due & _tied(self.bounds, self.sets) if due.any() else due

    @cached_property
    def rounding(self) -> Bools:
        """The tokens ``[T]`` that differ by what rounding permits, and no tie explains."""
        return np.asarray(self.unlike & self.right & self.bounds.judged & ~self.ties)

    @cached_property
    def stages(self) -> Sequence[str | None]:
        """For each router the first stage at which it is wrong, the status of a call, or None."""
        return [
            each.status if verdict is None else wrong_stage(verdict)
            for each, verdict in zip(self.answered, self.verdicts, strict=True)
        ]

    def causes(self) -> Iterator[Cause]:
        """Yield why the case is worth showing; a wrong answer that is known is no reason."""
        for router, stage in zip(self.routers, self.stages, strict=True):
            if stage and not self.excuse(router, stage):
                yield router.letter, stage
        if self.compared:
            kinds = {"ties": self.ties, "rounding": self.rounding}
            yield from (("differ", name) for name, tokens in kinds.items() if tokens.any())

    def excuse(self, router: Router, stage: str) -> str | None:
        """Return the known divergence that covers the case for a router, wrong at a stage."""
        bounds = self.bounds
        facts = bounds.facts if isinstance(bounds, SpreadBounds) else bounds
        return router.excused(stage, self.case, facts)


def routes_of(case: Case, routers: Sequence[Router]) -> Routes:
    """Give a case to every router, and judge each answer by what its router declares."""
    memo = CaseMemo()
    answered = [router.seat.answer(case) for router in routers]
    return Routes(
        case=case,
        bounds=memo.bounds(case, Numerics()),
        routers=routers,
        answered=answered,
        verdicts=[
            _judged(memo, case, router, each)
            for router, each in zip(routers, answered, strict=True)
        ],
    )


def _judged(memo: CaseMemo, case: Case, router: Router, answered: Answered) -> Verdict | None:
    if answered.answer is None:
        return None
    claimed = router.capabilities
    return memo.verdict(memo.bounds(case, claimed.numerics), answered.answer, claimed.logits)


def wrong_stage(verdict: Verdict) -> str | None:
    """Return the first stage at which an answer is wrong, or None where it is right."""
    stages = {
        "in range": verdict.in_range,
        "distinct": verdict.distinct,
        "logits": verdict.logits,
        "selection": verdict.selection,
        "weights": verdict.weights,
    }
    wrong = (name for name, each in stages.items() if each is not None and not each.all())
    return next(wrong, None)


def disputed(routes: Routes) -> Bools:
    """Return the experts ``[T, E]`` that some of the answers chose, and others did not."""
    return _disputed(routes.sets, routes.case.config.num_experts)


def _disputed(sets: Ids, num_experts: int) -> Bools:
    masks = np.array([chosen_mask(ids, num_experts) for ids in sets])
    return np.asarray(masks.any(axis=0) & ~masks.all(axis=0))


def _tied(bounds: Bounds, sets: Ids) -> Bools:
    """Return the tokens ``[T]`` whose disputed experts compete alike, or whose groups tie."""
    groups, kept = bounds.config.groups, bounds.reference.kept
    among, exact = _disputed(sets, bounds.config.num_experts), _exact(bounds)
    competing = exact if groups is None else np.where(kept, exact, groups.fill)
    least = np.where(among, competing, np.inf).min(axis=1)
    most = np.where(among, competing, -np.inf).max(axis=1)
    tied: Bools = least == most
    if groups is not None and groups.kept < groups.count:
        ranked = np.sort(group_scores(groups, exact), axis=1)
        cut = groups.count - groups.kept
        tied = tied | (ranked[:, cut] == ranked[:, cut - 1])
    return tied


def _exact(bounds: Bounds) -> Floats:
    """Return what the experts compete with, ``[T, E]``, the same for experts of the same rows.

    The float64 of the reference adds up equal products in another order at the edge of a batch.
    """
    inputs = bounds.inputs
    parts = (inputs.gate_weight, inputs.gate_delta, inputs.gate_bias, inputs.selection_bias)
    rows = [each.reshape(len(each), -1) for each in parts if each is not None]
    _, first, alike = np.unique(np.hstack(rows), axis=0, return_index=True, return_inverse=True)
    exact: Floats = np.fmax(bounds.reference.biased, -np.inf)[:, first[alike.ravel()]]
    return exact
