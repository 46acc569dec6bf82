"""What is wrong with every call of a backend, if all fail alike."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from moe_routing.conformance.cases.kinds import trial_of
from moe_routing.conformance.checking.outcome import evaluate
from moe_routing.conformance.checking.results import ClauseResult
from moe_routing.conformance.clauses import CLAUSES, Clause
from moe_routing.implementations import Adapter, Capabilities

_RAISED = re.compile(r"raised (\w+)")
_MALFORMED = "malformed answer: "


def throughout(results: Sequence[ClauseResult], capabilities: Capabilities) -> str | None:
    """Return how every call ends: in one kind of exception, or an answer of a wrong form.

    None if some call was answered, or if calls ended in different ways.
    """
    errors = [each.message for each in results if each.status == "error"]
    failures = [each.failure for each in results if each.status == "fail"]
    if not errors or any(each and each.stage != "layout" for each in failures):
        return None
    (often, _), *_ = Counter(errors).most_common(1)
    passed = [CLAUSES[each.id] for each in results if each.status == "pass"]
    raises, answers = _Raises(capabilities), _AnswersNothing(capabilities)
    kinds = {found[1] if found else None for found in map(_RAISED.match, errors)}
    if len(kinds) == 1 and None not in kinds and all(_passes(raises, each) for each in passed):
        return f"raises on every call: {often.removeprefix('raised ')}"
    malformed = all(each.startswith(_MALFORMED) for each in errors)
    if malformed and all(_passes(raises, each) or _passes(answers, each) for each in passed):
        return f"answers every call in a wrong form: {often.removeprefix(_MALFORMED)}"
    return None


def _passes(stand_in: Adapter, clause: Clause) -> bool:
    """Return whether a router that answers no call passes the constructed cases of a clause."""
    narrowed = clause.narrowed(stand_in.capabilities())
    cases = (event.constructed(narrowed) for event in clause.witnesses())
    trials = (trial_of(stand_in, case, clause.method) for case in cases if case is not None)
    return not any(evaluate(clause, trial).broken for trial in trials)


class _Raises:
    """Raises on every call."""

    name = "raises"

    def __init__(self, capabilities: Capabilities) -> None:
        self._capabilities = capabilities

    def capabilities(self) -> Capabilities:
        return self._capabilities

    def route(self, config: Any, inputs: Any) -> Any:
        self._answer()

    dispatch = shared_experts = permute = experts = route

    def gradients(self, config: Any, inputs: Any, cotangent: Any) -> Any:
        self._answer()

    expert_gradients = gradients
    replay = route_padded = gradients

    def _answer(self) -> None:
        raise ValueError("a stand-in")


class _AnswersNothing(_Raises):
    """Returns None."""

    name = "answers-nothing"

    def _answer(self) -> None:
        return None
