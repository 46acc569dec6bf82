"""Calls past 2^31 numbers: made by one profile alone, here at sizes that cost nothing."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance import conformance_tests
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.checking.profiles import PROFILES
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.cli import _parsed, configured, gating
from moe_routing.conformance.cli.options import UsageError
from moe_routing.conformance.events import EVENTS, HUGE
from moe_routing.conformance.events.experts_huge import RECIPE, inner_offsets
from moe_routing.conformance.run.isolation import watch
from moe_routing.implementations import Capabilities, Computes
from moe_routing.reference import ExpertsConfig, ExpertsInputs, experts

SLUG, PAST = "ran-inner-offsets-past-31-bits", 2**20
CLAUSE = CLAUSES["experts.large-offsets"]
CLAIMED = Capabilities(computes=Computes(max_experts=4, max_top_k=2), dtypes=("float32",))


class Layer:
    """Right experts, but for calls of so many inner numbers."""

    name = "layer"

    def __init__(self, otherwise: Any = None) -> None:
        self.otherwise = otherwise

    def capabilities(self) -> Capabilities:
        return CLAIMED

    def experts(self, config: ExpertsConfig, inputs: ExpertsInputs) -> Any:
        right = experts(config, inputs)
        many = inputs.expert_ids.size * inputs.width > PAST
        return self.otherwise(right) if many and self.otherwise else right


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HUGE, SLUG, inner_offsets(PAST, SLUG))


def result(adapter: Layer, huge: bool = True) -> Any:
    plan = Plan(clauses=[CLAUSE], max_examples=1, huge=huge, shrinks=False)
    return check_clause(adapter, CLAUSE, plan)


def wrapped(right: Any) -> Any:
    return np.where(np.arange(len(right))[:, None] < len(right) - 8, right, right[:1])


@pytest.mark.usefixtures("small")
class TestChecked:
    def test_a_right_layer_passes_and_the_event_was_seen(self) -> None:
        found = result(Layer())
        assert (found.status, found.events[SLUG]) == ("pass", "witnessed")

    def test_a_wrong_row_past_the_end_fails_at_its_own_size(self) -> None:
        found = result(Layer(wrapped))
        assert (found.status, found.case.recipe) == ("fail", RECIPE)
        assert found.case.inputs.expert_ids.size * found.case.inputs.width > PAST

    def test_without_the_profile_no_such_call_is_made(self) -> None:
        found = result(Layer(wrapped), huge=False)
        assert found.status == "pass"
        assert SLUG not in found.events

    @pytest.mark.parametrize("raised", [MemoryError(), RuntimeError("CUDA out of memory. Tried")])
    def test_a_machine_without_the_memory_proves_nothing(self, raised: Exception) -> None:
        def exhausted(right: Any) -> Any:
            raise raised

        found = result(Layer(exhausted))
        assert found.status == "inconclusive"
        assert found.message.startswith(f"never saw {SLUG}: no memory for it: raised ")

    def test_another_error_of_such_a_call_is_one(self) -> None:
        def broken(right: Any) -> Any:
            raise RuntimeError("an illegal memory access was encountered")

        assert result(Layer(broken)).status == "error"


def test_a_case_is_small_where_it_is_given_and_returned() -> None:
    case = HUGE[SLUG].constructed(CLAIMED)
    assert case is not None
    assert case.inputs.expert_ids.size * case.inputs.width > 2**31
    assert sum(array.nbytes for array in case.inputs.arrays().values()) < 10**8


@pytest.mark.parametrize(("device", "wanted"), [("cpu", 48), ("cuda", 8)])
def test_a_host_without_the_memory_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, device: str, wanted: int
) -> None:
    arguments = _parsed(["check", "torch", "--profile=huge", "--device", device])
    configured.fill(arguments)
    monkeypatch.setattr(watch, "available_memory", lambda: 7 * 2**30)
    with pytest.raises(UsageError, match=rf"^--profile huge takes {wanted} GiB .* and 7 GiB may "):
        gating.plan(arguments)
    monkeypatch.setattr(watch, "available_memory", lambda: wanted * 2**30)
    plan = gating.plan(arguments)
    assert (plan.huge, plan.shrinks) == (True, False)


def test_in_pytest_too_a_host_without_the_memory_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "available_memory", lambda: 7 * 2**30)
    items = conformance_tests("torch", profile="huge", clauses=CLAUSE.id)
    request: Any = SimpleNamespace(config=SimpleNamespace(getoption=lambda *_: None))
    words = r"^profile huge takes 48 GiB .* and 7 GiB may be used here: use a larger machine"
    with pytest.raises(pytest.fail.Exception, match=words):
        items(CLAUSE, request)


@pytest.mark.parametrize("command", ["compare", "zoo"])
def test_who_makes_no_huge_call_has_no_such_profile(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        _parsed([command, "reference", "torch", "--profile=huge"])
    assert ended.value.code == 2
    assert (
        "argument --profile: 'huge' is none of smoke, ci, nightly, soak; "
        in capsys.readouterr().err
    )


def test_few_tokens_cannot_reach_it() -> None:
    few = replace(CLAIMED, computes=replace(CLAIMED.computes, max_tokens=64))
    assert HUGE[SLUG].constructed(few) is None


def test_one_profile_alone_has_them_and_they_are_no_events_of_other_runs() -> None:
    assert [name for name, each in PROFILES.items() if each.huge] == ["huge"]
    assert not {*HUGE} & {*EVENTS}
    assert {slug for each in CLAUSES.values() for slug in each.huge} == {*HUGE}
    for name in PROFILES["huge"].clauses:
        assert CLAUSES[name].huge
