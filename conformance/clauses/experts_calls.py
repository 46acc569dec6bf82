"""What the clauses of the chapter on experts share: their calls, and what their checks return."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from moe_routing.conformance.clauses.registry import Check, clause
from moe_routing.conformance.explain.experts import experts_failure
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.generators.experts import TOKENS, Wishes, choose_experts_case
from moe_routing.conformance.generators.seeds import Seeded
from moe_routing.conformance.trial.experts import ExpertsTrial
from moe_routing.implementations import Capabilities
from moe_routing.reference.formats import Bools

if TYPE_CHECKING:
    from moe_routing.conformance.calls.experts import ExpertsCase

SOME = tuple(n for n in TOKENS if n)


def experts_clause(
    name: str,
    why: str,
    *,
    rules: tuple[str, ...],
    bugs: tuple[str, ...],
    events: tuple[str, ...],
    level: Any = "MUST",
    weights: str = "positive",
    poison: str = "",
    offers: dict[str, tuple[Any, ...]] | None = None,
    **parts: Any,
) -> Callable[[Check], Check]:
    """Register a clause of calls of experts, as these wish them."""
    wishes = Wishes(offers={"tokens": SOME, **(offers or {})}, weights=weights, poison=poison)
    return clause(
        f"experts.{name}",
        level,
        why=why,
        rules=rules,
        bugs=bugs,
        events=events,
        method="experts",
        strategy=lambda capabilities: _calls(capabilities, wishes),
        **parts,
    )


def _calls(capabilities: Capabilities, wishes: Wishes) -> Seeded[ExpertsCase]:
    return Seeded(partial(choose_experts_case, capabilities=capabilities, wishes=wishes))


def held(name: str, trial: ExpertsTrial, among: Bools | None = None) -> Failure | None:
    """Return the failure at the first output that is wrong, of these, ``[T]`` or ``[T, H]``."""
    wrong = trial.wrong
    if among is not None:
        wrong = wrong & (among[:, None] if among.ndim == 1 else among)
    return experts_failure(name, trial.layer, trial.output, wrong) if wrong.any() else None


def trial_of(trial: ExpertsTrial, case: ExpertsCase) -> ExpertsTrial:
    """Return the trial of another case of experts. Errors: ``Excused``."""
    return cast(ExpertsTrial, trial.of(case))


def lists(axis: str, value: Any) -> Callable[[Capabilities], str | None]:
    """Return what says that a claim does not list ``value``, which the clause is about."""

    def lacking(capabilities: Capabilities) -> str | None:
        listed = getattr(capabilities.computes, axis)
        return None if value in listed else f"computes.{axis}={listed} has no {value}"

    return lacking
