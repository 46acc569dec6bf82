"""One case put to one adapter again, alone: what a replay says, and a witness shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from moe_routing.conformance.cases.case import Case, SharedCase
from moe_routing.conformance.checking.outcome import evaluate, layout_of, own_fault
from moe_routing.conformance.checking.results import BROKEN, Status
from moe_routing.conformance.clauses import Clause
from moe_routing.conformance.explain.failure import told
from moe_routing.conformance.known.divergence import Divergence
from moe_routing.conformance.trial.trial import trial_of
from moe_routing.implementations import Adapter, BackendMissing


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What came of one case: a status, one line, and the story of a failure.

    It is ``ours`` where the suite itself went wrong.
    """

    status: Status
    message: str = ""
    details: tuple[str, ...] = ()
    ours: bool = False

    @property
    def broken(self) -> bool:
        """Whether the case breaks the clause."""
        return self.status in BROKEN


def still_breaking(
    listed: Iterable[Divergence], replay: Callable[[Case | SharedCase], Replayed]
) -> dict[str, bool]:
    """Tell, by their ids, which divergences are still there, from replays of their witnesses.

    An adapter is held to the witnesses that it claims, and has to claim one.
    """
    return {each.id: _all_broken([replay(case) for case in each.witnesses]) for each in listed}


def _all_broken(replays: Sequence[Replayed]) -> bool:
    claimed = [each for each in replays if each.status != "unsupported"]
    return bool(claimed) and all(each.broken for each in claimed)


def replay_case(adapter: Adapter, clause: Clause, case: Case | SharedCase) -> Replayed:
    """Put one case to one adapter. Errors: ``BackendMissing``."""
    try:
        return _replayed(adapter, clause, case)
    except BackendMissing:
        raise
    except Exception as error:  # calls are made in `evaluate`: the rest is the suite's
        return Replayed(status="error", message=own_fault(error), ours=True)


def _replayed(adapter: Adapter, clause: Clause, case: Case | SharedCase) -> Replayed:
    if (reason := _unsupported(adapter, clause, case)) is not None:
        return Replayed(status="unsupported", message=reason)
    trial = trial_of(adapter, case, clause.method)
    if clause.layout is not None and layout_of(trial) != clause.layout:
        return Replayed(status="unsupported", message=f"answers are not in {clause.layout}")
    outcome = evaluate(clause, trial)
    details = told(outcome.failure, case) if outcome.broken else ()
    return Replayed(
        status=outcome.status, message=outcome.words, details=details, ours=outcome.ours
    )


def _unsupported(adapter: Adapter, clause: Clause, case: Case | SharedCase) -> str | None:
    if not hasattr(adapter, clause.method):
        return f"the adapter has no method {clause.method}"
    capabilities = adapter.capabilities()
    if not clause.needs(capabilities):
        return "the capabilities exclude the clause"
    own = clause.strategy is not None  # it asks about calls that nobody need claim
    if isinstance(case, SharedCase) or own or capabilities.admits(case.config, case.inputs):
        return None
    return "the case is outside the adapter's claims"
