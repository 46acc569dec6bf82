"""The onset of a failure: at which size it begins, found to the unit and reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from moe_routing.conformance import Case
from moe_routing.conformance.cases.kinds import kind_of
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.onsets import BUDGET, Verdict, cut_down
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.cli import main
from moe_routing.conformance.generators.shared import make_shared_case
from moe_routing.conformance.zoo import MUTANTS
from moe_routing.reference import Groups, RouterConfig, RouterInputs, route

Fails = Callable[[Case], bool]


def large(
    tokens: int = 1, experts: int = 4, top_k: int = 1, hidden: int = 3, groups: int = 0
) -> Case:
    rng = np.random.default_rng(5)
    inputs = RouterInputs(
        hidden=rng.integers(-8, 9, (tokens, hidden)),
        gate_weight=rng.integers(-8, 9, (experts, hidden)),
    )
    rule = Groups(count=groups, kept=2) if groups else None
    config = RouterConfig(num_experts=experts, top_k=top_k, groups=rule)
    return Case(config=config, inputs=inputs)


def cut(case: Case, fails: Fails) -> tuple[Case, list[str], int]:
    """What is left of a case, what is said of it, and the calls that this took."""
    calls: list[Case] = []

    def tried(smaller: Case) -> Verdict:
        calls.append(smaller)
        return "fails" if fails(smaller) else "passes"

    assert fails(case), "the bug should be planted"
    smallest, onsets = cut_down(case, kind_of(case).sizes, tried)
    assert fails(smallest)
    return smallest, [each.words for each in onsets], len(calls)


def size_of(case: Case) -> tuple[int, int, int]:
    return case.inputs.num_tokens, case.config.num_experts, case.config.top_k


BEGINNINGS = [
    ({"tokens": 1366}, lambda c: c.inputs.num_tokens > 1024, "fails at T=1,025, passes at T=1,024"),
    ({"experts": 288}, lambda c: c.config.num_experts > 256, "fails at E=257, passes at E=256"),
    ({"experts": 40, "top_k": 20}, lambda c: c.config.top_k > 8, "fails at K=9, passes at K=8"),
    (
        {"hidden": 9000},
        lambda c: c.inputs.hidden_size > 4096,
        "fails at H=4,097, passes at H=4,096",
    ),
    (
        {"experts": 64, "groups": 16},
        lambda c: c.config.groups.count > 8,
        "fails at groups.count=9, passes at groups.count=8",
    ),
    (
        {"experts": 120, "groups": 3},
        lambda c: c.config.experts_per_group > 32,
        "fails at experts_per_group=33, passes at experts_per_group=32",
    ),
]


@pytest.mark.parametrize(("sizes", "fails", "words"), BEGINNINGS, ids=lambda x: str(x)[:24])
def test_the_size_at_which_a_failure_begins_is_reported(
    sizes: dict[str, int], fails: Fails, words: str
) -> None:
    _, onsets, calls = cut(large(**sizes), fails)
    assert words in onsets
    assert calls <= BUDGET


def test_a_row_that_has_to_lie_far_behind_is_found_as_well() -> None:
    case = large(tokens=1400)
    marked = case.inputs.hidden[1399] + 100

    def fails(smaller: Case) -> bool:
        return bool((smaller.inputs.hidden[1024:] == marked).all(axis=1).any())

    hidden = np.array(case.inputs.hidden)
    hidden[1399] = marked
    planted = Case(
        config=case.config,
        inputs=RouterInputs(hidden=hidden, gate_weight=case.inputs.gate_weight),
    )
    smallest, onsets, _ = cut(planted, fails)
    assert smallest.inputs.num_tokens == 1025
    assert onsets == ["fails at T=1,025, passes at T=1,024"]


def test_what_hangs_on_one_row_is_no_beginning() -> None:
    case = large(tokens=300)
    marked = [tuple(case.inputs.hidden[place]) for place in (7, 150, 290)]

    def fails(smaller: Case) -> bool:
        return {*marked} <= {tuple(row) for row in smaller.inputs.hidden}

    smallest, onsets, _ = cut(case, fails)
    assert onsets == [], "another row fewer would not have mattered"
    assert smallest.inputs.num_tokens <= 284


def test_a_small_case_is_left_alone() -> None:
    smallest, onsets, calls = cut(large(tokens=4, experts=8, top_k=4), lambda case: True)
    assert (size_of(smallest), onsets, calls) == ((4, 8, 4), [], 0)


def test_what_comes_to_something_else_is_not_said_to_pass() -> None:
    case = large(tokens=40)

    def tried(smaller: Case) -> Verdict:
        return "fails" if smaller.inputs.num_tokens > 16 else "else"

    smallest, onsets = cut_down(case, kind_of(case).sizes, tried)
    assert (smallest.inputs.num_tokens, onsets) == (17, ())


def test_the_slots_are_cut_without_a_slot_or_with_its_expert() -> None:
    (size,) = [each for each in kind_of(large()).sizes if each.name == "K"]
    case = large(experts=9, top_k=6)
    assert size_of(size.keep(case, np.arange(5))) == (1, 9, 5)
    fewer = size.keep(case, np.array([0, 1, 3, 4, 5]))
    assert size_of(fewer) == (1, 8, 5)
    ids = [route(each.config, each.inputs).expert_ids[0] for each in (case, fewer)]
    gate, less = case.inputs.gate_weight, fewer.inputs.gate_weight
    kept = np.delete(ids[0], 2)
    assert (np.sort(gate[kept], axis=0) == np.sort(less[ids[1]], axis=0)).all()


def test_is_bounded_and_the_same_each_time() -> None:
    case = large(tokens=2000, experts=700, top_k=90, hidden=2000)
    first, onsets, calls = cut(case, lambda c: c.config.num_experts % 2 == 0 or c.config.top_k > 3)
    again, then, _ = cut(case, lambda c: c.config.num_experts % 2 == 0 or c.config.top_k > 3)
    assert calls <= BUDGET
    assert (size_of(first), onsets) == (size_of(again), then)


def test_a_shared_expert_call_is_cut_by_its_tokens() -> None:
    case = make_shared_case(
        kind="singular", gated=False, dtype="float32", tokens=60, hidden=4, width=3, seed=1
    )
    fails = lambda smaller: len(smaller.inputs.hidden) > 32  # noqa: E731
    assert cut(case, fails)[1] == ["fails at T=33, passes at T=32"]


def test_a_clause_that_fails_says_where_it_begins() -> None:
    clause = CLAUSES["selection.every-expert-can-win"]
    plan = Plan(clauses=[clause], max_examples=5)
    result = check_clause(MUTANTS["only-first-256-experts"].adapter(), clause, plan)
    assert result.case is not None
    assert result.case.config.num_experts == 257
    assert result.story[1] == "begins    fails at E=257, passes at E=256"


def test_the_report_and_the_page_carry_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "backend.py"
    file.write_text(
        "from moe_routing.conformance.zoo import MUTANTS\n"
        "Backend = MUTANTS['only-first-32-experts'].adapter()\n"
    )
    report, page = tmp_path / "report.json", tmp_path / "page.html"
    outputs = ["--json", str(report), "--html", str(page), "--cases", str(tmp_path)]
    clause = ["--clause=selection.every-expert-can-win", "--profile=smoke", "--no-isolate"]
    assert main(["check", f"{file}:Backend", *clause, *outputs]) == 1
    (found,) = json.loads(report.read_text())["adapters"][0]["clauses"]
    assert found["onsets"] == [{"size": "E", "fails": 33, "passes": 32}]
    assert "begins    fails at E=33, passes at E=32" in capsys.readouterr().out
    assert "; fails at E=33, passes at E=32" in page.read_text()
