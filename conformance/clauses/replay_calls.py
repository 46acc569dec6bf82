"""What clauses of replay are made of: the records that they draw, and what holds their calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from moe_routing.conformance.calls.replay import ReplayCase
from moe_routing.conformance.clauses.registry import Check, clause
from moe_routing.conformance.explain.failure import Failure, first_failure
from moe_routing.conformance.explain.replay import replay_failure
from moe_routing.conformance.generators.choices import Focus
from moe_routing.conformance.generators.replay import choose_replay_case, replayed
from moe_routing.conformance.generators.seeds import Seeded
from moe_routing.conformance.trial.base import Unchecked
from moe_routing.conformance.trial.replay import ReplayTrial
from moe_routing.implementations import Capabilities
from moe_routing.reference import Recorded

FEW = 25
"""The cases that are drawn for a clause about one part: `forced` draws the whole pipeline."""


PLAIN = {"unrecorded": (False,), "absence": ("none",), "repeated experts": (False,)}
"""What is drawn of a record for the clauses that are about something else."""


def replay_clause(
    name: str,
    why: str,
    *,
    records: dict[str, Any] | None = None,
    offers: dict[str, Any] | None = None,
    needs: Callable[[Capabilities], str | None] = lambda capabilities: None,
    **parts: Any,
) -> Callable[[Check], Check]:
    """Register a clause about calls of ``replay``; ``records`` and ``offers`` say what is drawn."""
    focus, chosen = Focus(offers=_offers(offers)), records or {}

    def strategy(capabilities: Capabilities) -> Seeded[ReplayCase]:
        offered = _offers({**PLAIN, **chosen})
        return Seeded(lambda choose: choose_replay_case(choose, capabilities, focus, offered))

    register: Callable[[Check], Check] = clause(
        f"replay.{name}",
        "MUST",
        why=why,
        method="replay",
        strategy=strategy,
        needs=lambda capabilities: _nothing_left(capabilities) or needs(capabilities),
        **{"most": FEW, **parts},
    )
    return register


def _nothing_left(capabilities: Capabilities) -> str | None:
    if replayed(capabilities).claims:
        return None
    return "all that is claimed has weights_from='masked_scores', and replays.masked does not"


def _offers(listed: dict[str, Any] | None) -> dict[str, Any]:
    return {name: _among(values) for name, values in (listed or {}).items()}


def _among(values: Any) -> Callable[[Any], list[Any]]:
    return lambda offered: [each for each in offered if each in values]


def lists(axis: str) -> Callable[[Capabilities], str | None]:
    """Return why capabilities claim no record that has this, or None if they do."""

    def needs(capabilities: Capabilities) -> str | None:
        listed = getattr(capabilities.replays, axis)
        return None if True in listed else f"replays.{axis}={listed} does not list True"

    return needs


def held(trial: ReplayTrial, *, made: ReplayCase | None = None) -> Failure | None:
    """Return how a replay is wrong, or a layer without a record that it routes."""
    if trial.facts.replayed:
        found = replay_failure(trial.verdict)
    else:
        found = first_failure(trial.as_routing, "selection", "weights")
    return replace(found, made=made) if found is not None and made is not None else found


def another(trial: ReplayTrial, record: Recorded) -> ReplayTrial:
    """Return the trial of the same call with another record. Errors: ``Excused``, ``Unchecked``."""
    case = ReplayCase.of(trial.case, record)
    if refused := trial.capabilities.replays.refusals(case.config, record):
        raise Unchecked(f"what the clause makes of the case is not claimed: {', '.join(refused)}")
    return cast(ReplayTrial, trial.of(case))
