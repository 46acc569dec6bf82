"""The smallest failure: a broken case repeated, made smaller, and repeated again."""

from __future__ import annotations

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.cases.kinds import kind_of
from moe_routing.conformance.checking.outcome import Outcome
from moe_routing.conformance.checking.target import Target
from moe_routing.conformance.generators.reducer import reduce_case


def smallest_failure(target: Target, case: AnyCase, broken: Outcome) -> tuple[AnyCase, Outcome]:
    """Return the smallest case found that breaks as ``case`` does, and its outcome.

    Where a repeated call passes, the outcome says that the backend is flaky.
    """
    again = target.evaluate(case)
    if not again.broken:
        return case, broken.as_flaky()
    if not target.plan.shrinks:
        return case, again
    smallest = again

    def breaks_alike(smaller: AnyCase) -> bool:
        nonlocal smallest
        outcome = target.evaluate_if_due(smaller)
        if outcome is None or outcome.kind != again.kind:
            return False
        smallest = outcome
        return True

    case = reduce_case(case, kind_of(case).reductions, breaks_alike)
    last = target.evaluate(case)
    return case, last if last.broken else smallest.as_flaky()
