"""The clause, the event and the mutant that CONTRIBUTING.md prints work as they stand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from moe_routing.conformance import Plan
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.clauses.rules import PAGES
from moe_routing.conformance.events import EVENTS
from moe_routing.conformance.zoo import MUTANTS
from moe_routing.implementations import load_adapter

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"
MODULES = {"clause": "clauses", "event": "events", "mutant": "zoo.mutants"}

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the page is not here")


def printed(kind: str) -> str:
    """Return the block of code of the page that is decorated by ``kind``."""
    (block,) = re.findall(rf"```python\n(@{kind}\((?:.*\n)*?)```", PAGE.read_text())
    return str(block)


@pytest.fixture
def added() -> Iterator[None]:
    """Run the blocks with the names of the modules that they belong in."""
    before = [(each, dict(each)) for each in (CLAUSES, EVENTS, MUTANTS)]
    for kind, package in MODULES.items():
        module = import_module(f"moe_routing.conformance.{package}.weights")
        exec(compile(printed(kind), f"{PAGE.name}: {kind}", "exec"), dict(vars(module)))
    yield
    for registry, kept in before:
        registry.clear()
        registry.update(kept)


@pytest.mark.usefixtures("added")
def test_the_printed_clause_passes_a_right_router_and_catches_the_mutant_it_names() -> None:
    clause = CLAUSES["weights.switched-off"]
    plan = Plan(clauses=[clause], max_examples=20)
    assert check_clause(load_adapter("reference"), clause, plan).status == "pass"
    assert f"- **{clause.rules[0]}** " in PAGE.read_text()
    assert PAGES[clause.rules[0].partition("-")[0]] == "docs/spec/weights.md"
    named = re.findall(rf'`"{clause.rules[0]}": "([\w-]+)",`', PAGE.read_text())
    assert named == ["zero-scale-ignored"]
    assert check_clause(MUTANTS[named[0]].adapter(), clause, plan).status == "fail"


@pytest.mark.usefixtures("added")
def test_the_printed_event_makes_its_clause_catch_the_printed_mutant() -> None:
    router = MUTANTS["sign-of-scale-lost"].adapter()
    plain = CLAUSES["weights.scale"]
    clause = replace(plain, events=(*plain.events, "scaled-by-less"))
    assert MUTANTS["sign-of-scale-lost"].family in clause.bugs
    result = check_clause(load_adapter("reference"), clause, Plan(clauses=[clause], max_examples=1))
    assert result.events["scaled-by-less"] == "witnessed"
    assert check_clause(router, clause, Plan(clauses=[clause], max_examples=1)).status == "fail"
