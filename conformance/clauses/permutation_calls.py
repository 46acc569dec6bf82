"""What clauses of permutation are made of: the calls that they draw, and what holds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from moe_routing.conformance.clauses.registry import Check, clause
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.explain.permutation import permutation_failure
from moe_routing.conformance.generators.permutation import TOKENS, choose_permutation_case
from moe_routing.conformance.generators.seeds import Seeded
from moe_routing.conformance.judge.permutation import Breach, Due, Permuted
from moe_routing.conformance.trial.permutation import PermutationTrial
from moe_routing.implementations import Capabilities

if TYPE_CHECKING:
    from moe_routing.conformance.calls.permutation import PermutationCase


Law = Callable[[Due, Permuted], Breach | None]


def permutation_clause(
    name: str,
    why: str,
    *,
    rules: tuple[str, ...],
    bugs: tuple[str, ...],
    events: tuple[str, ...],
    level: Any = "MUST",
    tokens: Sequence[int] = TOKENS,
    **parts_: Any,
) -> Callable[[Check], Check]:
    """Register a clause about calls of ``permute``; ``tokens`` are the batches that are drawn."""
    return clause(
        f"permutation.{name}",
        level,
        why=why,
        rules=rules,
        bugs=bugs,
        events=events,
        method="permute",
        without_tokens=True,
        strategy=lambda capabilities: _calls(capabilities, tokens),
        **parts_,
    )


def _calls(capabilities: Capabilities, tokens: Sequence[int]) -> Seeded[PermutationCase]:
    permutes = capabilities.permutes
    return Seeded(partial(choose_permutation_case, permutes=permutes, tokens=tokens))


def held(name: str, law: Law, trial: PermutationTrial) -> Failure | None:
    """Return the failure of one law on the answer, if it breaks it."""
    breach = law(trial.due, trial.received)
    return None if breach is None else failed(name, trial, breach)


def failed(name: str, trial: PermutationTrial, breach: Breach) -> Failure:
    """Return the failure of a call that breaks a law."""
    return permutation_failure(name, trial.due, trial.received, breach, trial.layout)
