"""Batches: an answer to many tokens, judged by the few that differ and by what differs in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from moe_routing.conformance.explain.failure import Failure, first_failure
from moe_routing.conformance.explain.story import call
from moe_routing.conformance.generators.construct import take_tokens
from moe_routing.conformance.judge import Answer, Bounds, Verdict, judge
from moe_routing.conformance.trial.few import repeats, right, rows_of, unlike_rows
from moe_routing.conformance.trial.trial import Trial
from moe_routing.reference.formats import Ids

_STAGES = ("logits", "selection", "weights")

_WHOLE = 2**18
"""The most numbers in the logits of a batch whose failure is told of the whole batch."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """A trial, and the bounds of its tokens: those of ``which[i]`` of ``bounds`` for token i."""

    trial: Trial
    bounds: Bounds
    which: Ids

    @classmethod
    def of(cls, trial: Trial) -> Batch:
        """Return the batch of a trial: where it is large, by those of its tokens that differ."""
        found = trial.once(repeats)
        if found is None:
            tokens = np.arange(trial.case.inputs.num_tokens)
            return cls(trial=trial, bounds=trial.bounds, which=tokens)
        return cls(trial=trial, bounds=trial.another(found.few).bounds, which=found.which)

    def part(self, other: Trial, tokens: Ids) -> Batch:
        """Return the batch of another trial, whose row i is the row ``tokens[i]`` of this one."""
        return Batch(trial=other, bounds=self.bounds, which=self.which[tokens])

    def failure(self, *stages: str) -> Failure | None:
        """Return the first thing wrong with the answer at any of ``stages``, or None."""
        trial, stages = self.trial, stages or _STAGES
        if self.bounds is trial.bounds:
            return first_failure(trial.verdict, *stages)
        rows, verdict = self.judged()
        wrong = ~right(verdict, stages)
        return _failure_of(trial, int(rows[wrong].min()), stages) if wrong.any() else None

    def judged(self) -> tuple[Ids, Verdict]:
        """Return the rows of the answer that differ, and the verdict on them."""
        answer = self.trial.received.answer
        if self.bounds is self.trial.bounds:
            return np.arange(len(self.which)), self.trial.verdict
        rows, _ = unlike_rows(self.which, answer)
        return rows, self._verdict(rows_of(answer, rows), self.which[rows])

    def _verdict(self, answer: Answer, tokens: Ids) -> Verdict:
        """Judge an answer to some ``tokens``; where they are all, as in another batch, once."""
        trial, logits = self.trial, self.trial.capabilities.logits
        if np.array_equal(tokens, np.arange(len(self.bounds.judged))):
            return trial.memo.verdict(self.bounds, answer, logits)
        own = answer.logits is not None
        some = self.bounds.repeated(tokens, logits=own, later=not own or logits != "routed")
        return judge(some, answer, logits=logits)


def _failure_of(trial: Trial, token: int, stages: Sequence[str]) -> Failure | None:
    """Tell the failure of a token: in a large batch, of that token judged alone."""
    case, answer = trial.case, trial.received.answer
    if case.inputs.num_tokens * case.config.num_experts <= _WHOLE:
        return first_failure(trial.verdict, *stages)
    alone = trial.another(take_tokens(case, [token])).bounds
    verdict = judge(alone, rows_of(answer, np.array([token])), logits=trial.capabilities.logits)
    failure = first_failure(verdict, *stages)
    if failure is None:
        return None
    first = f"token {token} of {call(case.config, case.inputs)}"
    return replace(
        failure,
        token=token,
        summary=f"as row 0, row {token} of {case.inputs.num_tokens:,}: {failure.summary}",
        details=(first, *failure.details[1:]),
    )
