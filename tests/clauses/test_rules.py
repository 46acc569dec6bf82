"""Rules and clauses: every rule of docs/spec has a clause, or a reason why none can check it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from for_each import for_each

from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.clauses.registry import Clause
from moe_routing.conformance.clauses.rules import PAGES, UNCHECKED, cited, rule_lines
from moe_routing.conformance.pages.spec_rules import stated
from moe_routing.conformance.zoo import HONEST

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "docs" / "spec"
STATED = {path: stated(path.read_text()) for path in sorted(SPEC.glob("*.md"))}
RULES = [rule for found in STATED.values() for rule in found]
CHECKED = {rule for each in CLAUSES.values() for rule in each.rules}

pytestmark = pytest.mark.skipif(not SPEC.is_dir(), reason="the docs are not here")


@for_each({rule: rule for rule in RULES})
def test_a_rule_has_a_clause_or_a_reason_and_not_both(rule: str) -> None:
    assert (rule in CHECKED) != (rule in UNCHECKED), (
        f"{rule} needs a clause that names it in rules, in a module that "
        "conformance/clauses/__init__.py imports, or a reason in UNCHECKED, and not both"
    )


@for_each(CLAUSES)
def test_a_clause_names_rules_that_there_are_once_each(each: Clause) -> None:
    unknown = sorted({*each.rules} - {*RULES})
    assert not unknown, f"{unknown} are on no page of docs/spec: write the rule there"
    assert len(set(each.rules)) == len(each.rules)


def test_a_reason_is_of_a_rule_that_there_is() -> None:
    assert {*UNCHECKED} <= {*RULES}, f"{sorted({*UNCHECKED} - {*RULES})} are on no page"


def test_an_honest_variant_that_a_reason_names_is_in_the_zoo() -> None:
    named = re.findall(r"honest variant: `([\w-]+)`", " ".join(UNCHECKED.values()))
    assert named
    assert {*named} <= {*HONEST}


def test_no_two_rules_share_an_id() -> None:
    twice = {rule for rule in RULES if RULES.count(rule) > 1}
    assert not twice


@pytest.mark.parametrize("page", STATED, ids=lambda page: page.stem)
def test_a_rule_stands_on_the_page_that_its_id_says(page: Path) -> None:
    at = str(page.relative_to(ROOT))
    astray = [rule for rule in STATED[page] if PAGES[rule.partition("-")[0]] != at]
    assert not astray
    numbers = re.findall(r"\*\*([A-Z]+-\d+)", page.read_text())
    assert numbers == STATED[page], "a rule that is no item of a list goes unseen"


def test_every_page_of_rules_is_there() -> None:
    assert {str(page.relative_to(ROOT)) for page, found in STATED.items() if found} == {
        *PAGES.values()
    }


def test_rules_are_cited_by_their_pages() -> None:
    assert cited(("SEL-4", "ROB-3", "SEL-5")) == [
        "SEL-4, SEL-5 (docs/spec/selection.md)",
        "ROB-3 (docs/spec/robustness.md)",
    ]


def test_the_lines_of_a_story_name_the_rules() -> None:
    assert rule_lines(("WGT-1",)) == ["rule      WGT-1 (docs/spec/weights.md)"]
    assert rule_lines(("SEL-9", "ROB-3")) == [
        "rules     SEL-9 (docs/spec/selection.md)",
        "          ROB-3 (docs/spec/robustness.md)",
    ]
    assert rule_lines(()) == []
