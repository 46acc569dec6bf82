"""Replay: one clause on one given case of one adapter, for a case file or a witness."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

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


Standing = Literal["there", "gone", "unclaimed"]
"""What replays show of a known divergence: nothing if none of its witnesses is claimed."""


def standings(
    listed: Iterable[Divergence], replay: Callable[[AnyCase], Replayed]
) -> dict[str, Standing]:
    """Return, by their ids, whether divergences are there, from replays of their witnesses.

    Only witnesses count that an adapter claims, and in which there is something to check.
    """
    return {each.id: _standing([replay(case) for case in each.witnesses]) for each in listed}


def _standing(replays: Sequence[Replayed]) -> Standing:
    claimed = [each for each in replays if each.status not in ("unsupported", "inconclusive")]
    if not claimed:
        return "unclaimed"
    return "there" if all(each.broken for each in claimed) else "gone"


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
    if outcome.unchecked:
        message = f"the clause has nothing to check in this case: {outcome.unchecked}"
        return Replayed(status="inconclusive", message=message)
    return Replayed(
        status=outcome.status,
        message=outcome.words,
        details=lines_of(outcome.reported, case) if outcome.broken else (),
        suite_fault=outcome.suite_fault,
    )
