"""The outcome: what a clause said of one case."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from moe_routing.conformance.clauses import Clause
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.trial.boundary import Malformed
from moe_routing.conformance.trial.trial import Excused, Raised, SharedTrial, Trial, in_words
from moe_routing.implementations import BackendLost, BackendMissing

_PACKAGE = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a clause said of one case: nothing, a failure, or that it could not be asked.

    ``unasked`` is the status of what could not be asked: ``error``, or ``crash``. It is
    ``ours`` where the suite itself went wrong.
    """

    failure: Failure | None = None
    error: str | None = None
    unasked: Literal["crash", "error"] = "error"
    ours: bool = False

    @property
    def status(self) -> Literal["pass", "fail", "crash", "error"]:
        """The status that the case alone gives its clause."""
        if self.failure is not None:
            return "fail"
        return "pass" if self.error is None else self.unasked

    @property
    def kind(self) -> tuple[str, str | None, bool]:
        """What must stay the same while a failing case is made smaller."""
        failure = self.failure
        return self.status, failure and failure.stage, bool(failure and failure.case)

    @property
    def broken(self) -> bool:
        """Whether anything is wrong."""
        return self.failure is not None or self.error is not None

    def unsteady(self) -> Outcome:
        """Return the outcome of a call that broke like this, and passed when it was repeated."""
        if self.ours:  # it says nothing of the backend, however often it shows
            return self
        failure = self.failure or Failure(stage="call", summary=self.words)
        words = f"not repeatable: passed when the same call was repeated, after: {self.words}"
        return Outcome(failure=replace(failure, summary=words, steady=False))

    @property
    def words(self) -> str:
        """What is wrong, in one line; nothing where nothing is."""
        return self.failure.summary if self.failure else self.error or ""


def evaluate(clause: Clause, trial: Trial | SharedTrial) -> Outcome:
    """Put the clause's question about one trial. Errors: ``BackendMissing``."""
    try:
        with np.errstate(all="ignore"):
            return Outcome(failure=clause.check(trial))
    except Excused:
        return Outcome()
    except BackendMissing:
        raise
    except BackendLost as error:
        return Outcome(error=str(error), unasked=error.status)
    except Raised as error:
        return Outcome(error=str(error))
    except Malformed as error:
        return Outcome(error=f"malformed answer: {error}")
    except Exception as error:
        return Outcome(error=own_fault(error), ours=True)


def own_fault(error: Exception) -> str:
    """Tell in one line what went wrong in the suite itself, which is no verdict on a backend."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _PACKAGE in Path(frame.filename).parents]
    places = [f" at {Path(f.filename).relative_to(_PACKAGE)}:{f.lineno}" for f in own[-1:]]
    return f"the suite itself went wrong: {in_words(error)}{''.join(places)}; please report it"


def layout_of(trial: Trial | SharedTrial) -> str | None:
    """Return the layout of a trial's answer, or None where there is none to read."""
    try:
        return trial.received.layout if isinstance(trial, Trial) else None
    except (BackendLost, Raised, Malformed):
        return None
