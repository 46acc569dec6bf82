"""Torch's own steps in 16 bits are honest, as the zoo's are in NumPy."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from sixteen_bit_routers import FORMS

from moe_routing.conformance import Plan, select_clauses
from moe_routing.conformance.checking.clause_run import check_clause

CLAUSES = select_clauses(["weights.sum", "weights.scale"])


@pytest.mark.parametrize("form", FORMS)
def test_each_form_passes(form):
    plan = Plan(clauses=CLAUSES, max_examples=20, dtype="bfloat16")
    results = [check_clause(form(), clause, plan) for clause in CLAUSES]
    assert {each.status for each in results} == {"pass"}, results
