"""The outcome of one clause on one case."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.checking.progress import Seen
from moe_routing.conformance.clauses import Clause
from moe_routing.conformance.events.experts_huge import RECIPE
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.explain.onset import Onset
from moe_routing.conformance.trial.base import AnyTrial, Excused, Unchecked
from moe_routing.conformance.trial.boundary import Malformed
from moe_routing.conformance.trial.call import Raised, in_words
from moe_routing.implementations import BackendLost, BackendMissing

_PACKAGE = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of one clause on one case: nothing, a failure, or an error.

    ``error_status`` is the status if the call could not be judged, and ``costly`` says that
    another such call costs seconds. ``suite_fault`` is set when the suite itself failed;
    ``story`` is the story of an error of the backend. ``unchecked`` says why nothing was checked,
    where nothing was; ``excused`` is set where a known divergence is the reason, and ``due`` where
    the event is still to be seen, on a larger machine. ``onsets`` are
    the sizes at which it begins, where known.
    """

    failure: Failure | None = None
    error: str | None = None
    error_status: Literal["crash", "timeout", "error"] = "error"
    costly: bool = False
    suite_fault: bool = False
    onsets: tuple[Onset, ...] = ()
    story: Failure | None = None
    unchecked: str = ""
    excused: bool = False
    due: bool = False

    @property
    def status(self) -> Literal["pass", "fail", "crash", "timeout", "error"]:
        """The status that the case alone gives its clause."""
        if self.failure is not None:
            return "fail"
        return "pass" if self.error is None else self.error_status

    @property
    def seen(self) -> Seen:
        """What became of the event that the case was constructed for, unless it was witnessed."""
        if self.excused:
            return "known"
        return "unreachable" if self.unchecked and not self.due else "missing"

    @property
    def reported(self) -> Failure | None:
        """The story of a failure, or of an error of the backend."""
        return self.failure or self.story

    @property
    def kind(self) -> tuple[str, str | None, bool]:
        """What must stay the same while a failing case is made smaller."""
        failure = self.failure
        stage = None if failure is None else failure.stage
        return self.status, stage, failure is not None and failure.case is not None

    @property
    def broken(self) -> bool:
        """Whether anything is wrong."""
        return self.failure is not None or self.error is not None

    def as_flaky(self) -> Outcome:
        """Return the outcome of a call that broke like this, and passed when it was repeated."""
        if self.suite_fault:  # no verdict on the backend, flaky or not
            return self
        failure = self.reported or Failure(stage="call", summary=self.words)
        words = f"not repeatable: passed when the same call was repeated, after: {self.words}"
        return Outcome(failure=replace(failure, summary=words, steady=False))

    @property
    def words(self) -> str:
        """What is wrong, in one line; empty if nothing is."""
        return self.failure.summary if self.failure else self.error or ""


def evaluate(clause: Clause, trial: AnyTrial) -> Outcome:
    """Check the clause on one trial. Errors: ``BackendMissing``."""
    try:
        with np.errstate(all="ignore"):
            return _checked(clause, trial)
    except Unchecked as reason:
        return Outcome(unchecked=str(reason), excused=isinstance(reason, Excused))
    except BackendMissing:
        raise
    except BackendLost as error:
        return Outcome(error=str(error), error_status=error.status, costly=error.costly)
    except Raised as error:
        if trial.case.recipe == RECIPE and is_out_of_memory(error.__cause__):
            return Outcome(unchecked=f"no memory for it: {error}", due=True)
        return _error(str(error), error.case, error.where)
    except Malformed as error:
        return _error(f"malformed answer: {error}", error.case)
    except Exception as error:
        return Outcome(error=own_fault(error), suite_fault=True)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an exception, of Python or of any array library, says that memory is out."""
    if error is None:
        return False
    return isinstance(error, MemoryError) or "out of memory" in str(error).lower()


def _error(words: str, case: AnyCase | None, where: tuple[str, ...] = ()) -> Outcome:
    story = Failure(stage="call", summary=words, details=where, made=case)
    return Outcome(error=words, story=story)


def _checked(clause: Clause, trial: AnyTrial) -> Outcome:
    """Check what the case and the layout of its answer let the clause check. Errors: any."""
    if clause.layout is not None and trial.layout != clause.layout:
        raise Unchecked(f"the answer is no {clause.layout}, but a {trial.layout}")
    if clause.part is not None and clause.part not in trial.parts:
        raise Unchecked(f"the answer has no {clause.part}")
    failure = clause.check(trial)
    empty = not clause.without_tokens and trial.case.num_tokens == 0
    if failure is None and empty:
        raise Unchecked("the case has no tokens")
    return Outcome(failure=failure)


def own_fault(error: Exception) -> str:
    """Return one line on a fault of the suite itself, which is no verdict on a backend."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _PACKAGE in Path(frame.filename).parents]
    places = [f" at {Path(f.filename).relative_to(_PACKAGE)}:{f.lineno}" for f in own[-1:]]
    return f"the suite itself went wrong: {in_words(error)}{''.join(places)}; please report it"


def layout_of(trial: AnyTrial) -> str | None:
    """Return the layout of a trial's answer, or None where there is none to read."""
    try:
        return trial.layout
    except (BackendLost, Raised, Malformed):
        return None


def parts_of(trial: AnyTrial) -> frozenset[str]:
    """Return the optional parts of a trial's answer; none where there is no answer to read."""
    try:
        return trial.parts
    except (BackendLost, Raised, Malformed):
        return frozenset()
