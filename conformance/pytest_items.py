"""Conformance tests for an author's own repository: one pytest item a clause."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from moe_routing.conformance.case import save_case
from moe_routing.conformance.clauses import select_clauses
from moe_routing.conformance.engine import PROFILES, Plan, check_clause
from moe_routing.conformance.known import load_known
from moe_routing.implementations import Adapter


def conformance_tests(
    adapter: Adapter,
    *,
    profile: str = "ci",
    seed: int = 0,
    clauses: Sequence[str] = (),
    known: str | Path | None = None,
    cases: str | Path = "moe-routing-cases",
) -> Callable[..., None]:
    """Return a test function with one item a clause; assign it to a name pytest collects.

    ``clauses`` are globs of clause ids, ``known`` a known-divergences file; failing cases
    are written under ``cases``. An unsupported clause skips, a known one is an expected
    failure, every other status but pass fails. Errors: ``ValueError`` for an unknown
    profile, ``NoSuchClause``, ``KnownError``.
    """
    if profile not in PROFILES:
        raise ValueError(f"Expected profile to be one of {', '.join(PROFILES)} but got {profile!r}")
    plan = Plan(
        clauses=select_clauses(clauses),
        max_examples=PROFILES[profile],
        seed=seed,
        known=load_known(Path(known)) if known else (),
    )

    @pytest.mark.parametrize("clause", plan.clauses, ids=[each.id for each in plan.clauses])
    def test_routing(clause) -> None:
        result = check_clause(adapter, clause, plan)
        if result.status == "unsupported":
            pytest.skip(result.message)
        if result.status == "known":
            pytest.xfail("; ".join(f"{k}: {v}" for k, v in result.divergences.items()))
        if result.status == "pass":
            return
        lines = [f"{result.status}: {clause.statement}", result.message]
        lines += result.failure.details if result.failure else ()
        if result.case is not None:
            path = Path(cases) / adapter.name / f"{clause.id}.json"
            save_case(result.case, path, clause=clause.id)
            lines.append(f"Reproduce with: moe-routing replay {path} MODULE:ADAPTER")
        pytest.fail("\n".join(lines), pytrace=False)

    return test_routing
