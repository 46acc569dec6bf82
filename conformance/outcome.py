"""The outcome: what a clause said of one case."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moe_routing.conformance.boundary import Malformed
from moe_routing.conformance.clauses import Clause
from moe_routing.conformance.failure import Failure
from moe_routing.conformance.judge import JudgeError
from moe_routing.conformance.trial import Excused, Raised, SharedTrial, Trial


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a clause said of one case: nothing, a failure, or that it could not be asked."""

    failure: Failure | None = None
    error: str | None = None

    @property
    def kind(self) -> tuple[bool, str | None, bool]:
        """What must stay the same while a failing case is made smaller."""
        failure = self.failure
        return self.error is None, failure and failure.stage, bool(failure and failure.case)

    @property
    def broken(self) -> bool:
        """Whether anything is wrong."""
        return self.failure is not None or self.error is not None

    @property
    def words(self) -> str:
        """What is wrong, in one line; nothing where nothing is."""
        return self.failure.summary if self.failure else self.error or ""


def evaluate(clause: Clause, trial: Trial | SharedTrial) -> Outcome:
    """Put the clause's question about one trial."""
    try:
        with np.errstate(all="ignore"):
            return Outcome(failure=clause.check(trial))
    except Excused:
        return Outcome()
    except Raised as error:
        return Outcome(error=str(error))
    except Malformed as error:
        return Outcome(error=f"malformed answer: {error}")
    except JudgeError as error:
        return Outcome(error=f"the judge itself went wrong: {error}")


def layout_of(trial: Trial | SharedTrial) -> str | None:
    """Return the layout of a trial's answer, or None where there is none to read."""
    try:
        return trial.received.layout if isinstance(trial, Trial) else None
    except (Raised, Malformed):
        return None
