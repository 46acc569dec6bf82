"""One edge that breaks many clauses stays red in one, and hides nothing that is wrong besides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from nightly import SERIES

from moe_routing.conformance import Plan, RunResult, check, in_process, select_clauses
from moe_routing.conformance.checking.edges import EDGES, settled, words_of
from moe_routing.conformance.checking.results import ClauseResult
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.report.text import notes
from moe_routing.conformance.zoo import MUTANTS
from moe_routing.implementations import load_adapter

REFERENCE = load_adapter("reference")
SOME = (
    *("weights.*", "selection.*", "groups.*", "layout.well-formed", "layout.dtypes"),
    *("robustness.empty-batch", "robustness.answers", "scores.match"),
)


class Refuses:
    """The reference, but for some calls."""

    name = "refuses"
    capabilities = REFERENCE.capabilities

    def refuses(self, config: Any, inputs: Any) -> bool:
        return False

    def route(self, config: Any, inputs: Any) -> Any:
        if self.refuses(config, inputs):
            raise RuntimeError("not this one")
        return REFERENCE.route(config, inputs)


class NoEmptyBatch(Refuses):
    def refuses(self, config: Any, inputs: Any) -> bool:
        return inputs.num_tokens == 0


class NoGroupOfOne(Refuses):
    def refuses(self, config: Any, inputs: Any) -> bool:
        return config.groups is not None and config.groups.count == config.num_experts


class Doubles(NoEmptyBatch):
    """It is wrong besides, for any batch."""

    def route(self, config: Any, inputs: Any) -> Any:
        right = super().route(config, inputs)
        return replace(right, weights=2.0 * right.weights)


def run_of(adapter: Any, *clauses: str, max_examples: int = 12) -> RunResult:
    some = select_clauses(clauses or SOME)
    plan = Plan(clauses=some, max_examples=max_examples, series=SERIES)
    return check(in_process({adapter.name: adapter}, plan), plan)


def red(run: RunResult) -> list[str]:
    return [each.id for each in run.adapters[0].clauses if not each.green]


@pytest.mark.parametrize(
    ("adapter", "clause", "words"),
    [
        (NoEmptyBatch(), "robustness.empty-batch", "checked without empty batches"),
        (NoGroupOfOne(), "groups.smaller-than-top", "checked without groups of one expert"),
        (MUTANTS["bfloat16-scores"].adapter(), "weights.match", "as if scores in bfloat16 were"),
    ],
    ids=["empty batch", "group of one", "bfloat16 scores"],
)
def test_a_single_edge_is_red_in_a_few_clauses(adapter: Any, clause: str, words: str) -> None:
    run = run_of(adapter)
    assert clause in red(run)
    assert len(red(run)) <= 3, red(run)
    assert run.exit_code == 1, "a first red still makes the run red"
    (line,) = [each for each in notes(run) if words in each]
    assert line.endswith(f": see {clause}"), line


def test_what_is_wrong_besides_stays_red() -> None:
    wrong = {"weights.match", "weights.sum", "weights.scale", "scores.match"}
    assert wrong <= set(red(run_of(Doubles())))


def test_an_edge_alone_is_reported_as_it_is() -> None:
    run = run_of(NoEmptyBatch(), "robustness.empty-batch")
    (result,) = run.adapters[0].clauses
    assert (result.status, result.past) == ("fail", ())
    assert not words_of(run.adapters[0].clauses)


def test_a_wrong_router_is_not_taken_for_an_edge() -> None:
    run = run_of(MUTANTS["bias-ignored"].adapter(), "selection.*")
    assert not any(each.past for each in run.adapters[0].clauses)


def test_a_clause_past_an_edge_has_to_be_checked_on_something() -> None:
    case = next(e for e in [CLAUSES["robustness.empty-batch"]]).witnesses()[0]
    empty = case.constructed(REFERENCE.capabilities())
    results = [
        ClauseResult(id=id_, level="MUST", chapter="x", status="error", case=empty)
        for id_ in ("robustness.answers", "weights.sum", "robustness.empty-batch")
    ]

    def again(id_: str, past: tuple[str, ...], shrinks: bool) -> ClauseResult:
        return ClauseResult(id=id_, level="MUST", chapter="x", status="pass", past=past)

    assert settled(results, again) == results, "nothing was run past the edge"


def test_edges_are_named_once_and_have_a_clause() -> None:
    assert len({edge.slug for edge in EDGES}) == len(EDGES)
    assert all(edge.clause in CLAUSES for edge in EDGES)


def test_a_run_may_be_narrowed_to_one_dtype() -> None:
    plan = Plan(clauses=select_clauses(["weights.match"]), max_examples=12, dtype="bfloat16")
    run = check(in_process({"reference": REFERENCE}, plan), plan)
    assert run.adapters[0].drawn().keys() & {"dtype:float32", "dtype:float16"} == set()
    narrow = replace(REFERENCE.capabilities(), dtypes=("float32",))

    class Single(Refuses):
        def capabilities(self) -> Any:
            return narrow

    (result,) = check(in_process({"single": Single()}, plan), plan).adapters[0].clauses
    assert (result.status, result.message) == (
        "unsupported",
        "the adapter claims no bfloat16 inputs",
    )
