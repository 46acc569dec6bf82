"""The engine: what runs first, what a pass needs, what becomes of a failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from moe_routing.conformance import Case, Plan, RunResult
from moe_routing.conformance.cases.files import case_to_json
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.results import AdapterResult, ClauseResult
from moe_routing.conformance.clauses.registry import Clause
from moe_routing.conformance.events import EVENTS, Event
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.run.engine import (
    AdapterFinished,
    AdapterStarted,
    ClauseFinished,
    ClauseStarted,
    run,
)
from moe_routing.conformance.run.session import in_process
from moe_routing.implementations import (
    Adapter,
    BackendMissing,
    Capabilities,
    Claim,
    Limits,
    load_adapter,
)
from moe_routing.reference import RouterConfig, RouterInputs, Routing, route

REFERENCE = load_adapter("reference")
DATA = Path(__file__).parents[1] / "data"
BIASED = load_adapter(f"{DATA}/wrong_adapters.py:BiasedWeights")


class Router:
    """A router of these capabilities, with ``change`` made to its right answers."""

    name = "router"

    def __init__(
        self,
        change: Callable[[RouterConfig, RouterInputs, Routing], Any] = lambda c, i, right: right,
        capabilities: Capabilities | None = None,
    ) -> None:
        self._change, self._capabilities = change, capabilities or Capabilities()

    def capabilities(self) -> Capabilities:
        return self._capabilities

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Any:
        right = route(RouterConfig(**vars(config)), inputs)
        return self._change(config, inputs, right)


def clause(check: Callable[..., Failure | None] = lambda trial: None, **parts: Any) -> Clause:
    given = {"id": "weights.mine", "level": "MUST", "statement": "It holds.", "why": "It must."}
    return Clause(**{**given, "events": ("any-case",), **parts}, check=check)


def checked(adapter: Adapter, wanted: Clause, *, examples: int = 3, seed: int = 0) -> ClauseResult:
    return check_clause(adapter, wanted, Plan(clauses=[wanted], max_examples=examples, seed=seed))


def seen_by(adapter: Adapter, *, examples: int, seed: int = 0, **parts: Any) -> list[Case]:
    """The cases that a clause is checked on, in order."""
    cases: list[Case] = []
    result = checked(
        adapter,
        clause(lambda trial: cases.append(trial.case), **parts),
        examples=examples,
        seed=seed,
    )
    assert result.status == "pass", result.message
    assert (result.constructed + result.examples, result.tokens) == (
        len(cases),
        sum(case.inputs.num_tokens for case in cases),
    )
    return cases


class TestWhatRuns:
    EVENTS = ("one-token", "tie-at-cut", "empty-batch")

    def test_a_constructed_case_for_every_event_then_the_drawn_ones(self) -> None:
        cases = seen_by(REFERENCE, examples=5, events=self.EVENTS)
        assert [case.recipe for case in cases[:3]] == ["constructed"] * 3
        assert all(case.recipe != "constructed" for case in cases[3:])
        assert [case.inputs.num_tokens for case in cases[:3]] == [1, 2, 0]
        assert len(cases) == 3 + 5

    def test_bulk_is_checked_where_the_plan_says_so(self) -> None:
        wanted = clause(bulk=("empty-batch",), without_tokens=True)
        assert [*checked(REFERENCE, wanted).events] == ["any-case"]
        result = check_clause(REFERENCE, wanted, Plan(clauses=[wanted], max_examples=1, bulk=True))
        assert result.events == {"any-case": "witnessed", "empty-batch": "witnessed"}

    def test_the_same_cases_for_the_same_seed_and_others_for_another(self) -> None:
        def drawn(seed: int) -> list[Any]:
            return [case_to_json(c) for c in seen_by(REFERENCE, examples=6, seed=seed)]

        assert drawn(1) == drawn(1)
        assert drawn(1) != drawn(2)

    def test_the_run_reports_before_and_after_every_clause_and_at_the_end(self) -> None:
        clauses = [clause(id="weights.one"), clause(id="weights.two")]
        plan = Plan(clauses=clauses, max_examples=1)
        reported = list(run(in_process({"reference": REFERENCE}, plan), plan))
        kinds = [AdapterStarted, *[ClauseStarted, ClauseFinished] * 2, AdapterFinished]
        assert [type(each) for each in reported] == kinds
        assert [each.id for each in reported[-1].result.clauses] == ["weights.one", "weights.two"]
        assert reported[-1].result.package == "moe-routing-conformance"

    def test_nothing_runs_after_the_first_failure(self) -> None:
        calls: list[int] = []

        def check(trial: Any) -> Failure | None:
            calls.append(trial.case.inputs.num_tokens)
            return Failure(stage="weights", summary="no") if len(calls) >= 2 else None

        result = checked(REFERENCE, clause(check, events=self.EVENTS))
        assert (result.status, result.constructed, result.examples) == ("fail", 2, 0)
        assert result.tokens == sum(calls[:2])

    def test_an_absent_backend_ends_the_run(self) -> None:
        def missing(*_: Any) -> Any:
            raise BackendMissing("python -m pip install it")

        with pytest.raises(BackendMissing, match="python -m pip install it"):
            checked(Router(missing), clause(lambda trial: trial.native))


class TestEvents:
    @pytest.fixture
    def fickle(self, monkeypatch: pytest.MonkeyPatch) -> str:
        """An event that its constructor shows, and that no case shows again."""
        answers = iter([True])
        made = Event(
            slug="fickle",
            statement="seen once",
            occurs=lambda bounds: next(answers, False),
            cases=EVENTS["any-case"].cases,
        )
        monkeypatch.setitem(EVENTS, "fickle", made)
        return made.slug

    def test_a_pass_that_never_saw_a_reachable_event_is_inconclusive(self, fickle: str) -> None:
        result = checked(REFERENCE, clause(events=(fickle, "any-case")))
        assert (result.status, result.message) == ("inconclusive", "never saw fickle")
        assert result.events == {"fickle": "missing", "any-case": "witnessed"}

    def test_an_unreachable_event_is_listed_and_does_no_harm(self) -> None:
        plain = Router(capabilities=Capabilities(claims=(Claim(groups=(None,)),)))
        result = checked(plain, clause(events=("any-case", "one-group")))
        assert (result.status, result.events["one-group"]) == ("pass", "unreachable")


NARROW = Capabilities(claims=(Claim(score=("softmax",), groups=(None,)),))


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"method": "dispatch"}, "the adapter has no method dispatch"),
        ({"narrow": {"groups": (True,)}}, "nothing claimed has groups=True"),
        ({"narrow": {"score": ("sigmoid", "identity")}}, "claimed has score=sigmoid/identity"),
        ({"needs": lambda capabilities: "no logits"}, "no logits"),
        ({"layout": "FlatRouting"}, "the adapter does not return FlatRouting"),
        ({"events": ("one-group", "saturated")}, "none of its events is reachable"),
    ],
)
def test_a_clause_that_does_not_apply_is_unsupported_and_says_why(
    parts: dict[str, Any], words: str
) -> None:
    result = checked(Router(capabilities=NARROW), clause(**parts))
    assert (result.status, result.case) == ("unsupported", None)
    assert words in result.message
    assert result.constructed == result.examples == 0, "nothing should have run"


def _weights_fail(trial: Any) -> Failure | None:
    fine = trial.verdict.weights.all()
    return None if fine else Failure(stage="weights", summary="wrong weights")


class TestFoundCases:
    def test_a_planted_bug_of_64_experts_and_63_tokens_gets_small(self) -> None:
        rng = np.random.default_rng(3)
        inputs = RouterInputs(
            hidden=rng.integers(-8, 9, (63, 33)),
            gate_weight=rng.integers(-8, 9, (64, 33)),
            selection_bias=rng.integers(-4, 5, 64) / 4.0,
            dtype="bfloat16",
        )
        config = RouterConfig(num_experts=64, top_k=6, score="sigmoid", scale=2.5)
        case = Case(config=config, inputs=inputs)
        wanted = clause(
            _weights_fail, events=("empty-batch",), strategy=lambda capabilities: st.just(case)
        )
        result = checked(BIASED, wanted)
        assert (result.status, result.failure.stage) == ("fail", "weights")
        assert result.case.inputs.num_tokens <= 4, result.case.size
        assert result.case.config.num_experts <= 8, result.case.size
        assert result.tokens == 63, "the tokens of the reduction do not count"

    def test_a_smaller_case_stays_within_the_claims(self) -> None:
        sigmoid = Claim(score=("sigmoid",), selection_bias=("gate",), expert_table=(False,))
        wrong = Router(
            lambda c, i, right: replace(right, weights=right.weights + 1.0),
            Capabilities(claims=(sigmoid,), limits=Limits(experts_multiple_of=2)),
        )
        result = checked(wrong, clause(_weights_fail))
        assert wrong.capabilities().admits(result.case.config, result.case.inputs)
        assert result.case.config.num_experts == 2, result.case.size

    @pytest.mark.parametrize("wrong", [{1}, {2}, {4}, {*range(5)}], ids=str)
    @pytest.mark.parametrize("words", ["wrong weights", "raised RuntimeError: a lost race ("])
    def test_an_adapter_that_is_wrong_at_times_fails_as_not_repeatable(
        self, wrong: set[int], words: str
    ) -> None:
        calls = iter(range(1000))

        def at_times(config: Any, inputs: Any, right: Routing) -> Routing:
            if inputs.num_tokens == 0 or next(calls) not in wrong:
                return right
            if words.startswith("raised"):
                raise RuntimeError("a lost race")
            return replace(right, weights=right.weights + 1.0)

        result = checked(Router(at_times), clause(_weights_fail), examples=10)
        assert (result.status, result.failure.steady) == ("fail", False)
        before = "not repeatable: passed when the same call was repeated, after: "
        assert result.message.startswith(f"{before}{words}")
        assert result.case is not None


def results(*statuses: str) -> Iterator[ClauseResult]:
    for i, status in enumerate(statuses):
        yield ClauseResult(id=f"weights.{i}", level="MUST", chapter="weights", status=status)


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["pass"], 0),
        (["known"], 0),
        (["pass", "known", "unsupported"], 0),
        ([], 1),
        (["unsupported"], 1),
        *((["pass", red], 1) for red in ("fail", "error", "crash", "timeout", "fixed")),
        (["pass", "inconclusive"], 1),
    ],
)
def test_a_run_is_green_where_something_passed_and_nothing_is_red(
    statuses: list[str], code: int
) -> None:
    adapter = finished(*statuses)
    whole = RunResult(profile="ci", seed=0, max_examples=1, environment={}, adapters=(adapter,))
    assert whole.exit_code == code
    summary = adapter.summary()
    assert summary["in_spec"] == 9, "the whole specification, whatever was run"
    assert summary["applicable"] == len(statuses) - statuses.count("unsupported")
    counted = ("passed", "failed", "known", "inconclusive", "unsupported", "errors")
    assert sum(summary[name] for name in counted) == len(statuses)


def finished(*statuses: str, cases: int = 10) -> AdapterResult:
    clauses = (replace(each, examples=cases) for each in results(*statuses))
    return AdapterResult(
        name="a", package=None, version=None, numerics=[], clauses=tuple(clauses), in_spec=9
    )


@pytest.mark.parametrize(("cases", "floor", "code"), [(10, 20, 0), (9, 20, 1), (0, 0, 0)])
def test_a_run_with_fewer_cases_than_the_floor_is_not_green(
    cases: int, floor: int, code: int
) -> None:
    whole = RunResult(
        profile="ci",
        seed=0,
        max_examples=1,
        environment={},
        adapters=(finished("pass", "pass", cases=cases),),
        min_cases=floor,
    )
    assert whole.exit_code == code


def test_every_adapter_must_have_been_checked() -> None:
    adapters = (finished("pass"), finished("unsupported"))
    whole = RunResult(profile="ci", seed=0, max_examples=1, environment={}, adapters=adapters)
    assert whole.exit_code == 1, "an adapter that supports nothing was not checked"
