"""Replay: one clause on one given case of one adapter, for a case file or a witness."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.cases.kinds import trial_of
from moe_routing.conformance.checking.outcome import evaluate, layout_of, own_fault
from moe_routing.conformance.checking.scope import case_scope
from moe_routing.conformance.checking.status import STATUSES, Status
from moe_routing.conformance.clauses import Clause
from moe_routing.conformance.explain.failure import lines_of
from moe_routing.conformance.known.divergence import Divergence
from moe_routing.conformance.trial.repeats import REPEATS
from moe_routing.implementations import Adapter, BackendMissing


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """The result of one case: a status, one line, and the story of a failure.

    ``suite_fault`` is set when the suite itself failed.
    """

    status: Status
    message: str = ""
    details: tuple[str, ...] = ()
    suite_fault: bool = False

    @property
    def broken(self) -> bool:
        """Whether the case breaks the clause."""
        return STATUSES[self.status].broken


def still_breaking(
    listed: Iterable[Divergence], replay: Callable[[AnyCase], Replayed]
) -> dict[str, bool]:
    """Return, by their ids, which divergences are still there, from replays of their witnesses.

    Only witnesses within an adapter's claims count, and there must be one.
    """
    return {each.id: _all_broken([replay(case) for case in each.witnesses]) for each in listed}


def _all_broken(replays: Sequence[Replayed]) -> bool:
    claimed = [each for each in replays if each.status != "unsupported"]
    return bool(claimed) and all(each.broken for each in claimed)


def replay_case(
    adapter: Adapter, clause: Clause, case: AnyCase, *, repeats: int = REPEATS
) -> Replayed:
    """Check the clause on one case of one adapter; ``repeats`` as in ``Plan``.

    Errors: ``BackendMissing``.
    """
    try:
        return _replayed(adapter, clause, case, repeats)
    except BackendMissing:
        raise
    except Exception as error:  # calls are made in `evaluate`: the rest is the suite's
        return Replayed(status="error", message=own_fault(error), suite_fault=True)


def _replayed(adapter: Adapter, clause: Clause, case: AnyCase, repeats: int) -> Replayed:
    if (reason := case_scope(adapter, clause, case)) is not None:
        return Replayed(status="unsupported", message=reason)
    trial = trial_of(adapter, case, clause.method, repeats=repeats)
    if clause.layout is not None and layout_of(trial) != clause.layout:
        message = f"the adapter does not return {clause.layout}"
        return Replayed(status="unsupported", message=message)
    outcome = evaluate(clause, trial)
    return Replayed(
        status=outcome.status,
        message=outcome.words,
        details=lines_of(outcome.failure, case) if outcome.broken else (),
        suite_fault=outcome.suite_fault,
    )
