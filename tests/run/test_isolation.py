"""Isolation: whatever an adapter does to its process is a verdict, and the run goes on."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance import (
    Case,
    Divergence,
    Plan,
    RunResult,
    Settings,
    check,
    load_case,
    select_clauses,
)
from moe_routing.conformance.checking.results import AdapterResult, ClauseResult
from moe_routing.conformance.run.isolation import Isolated, Watch
from moe_routing.reference import RouterConfig, RouterInputs

DATA = Path(__file__).parents[1] / "data"
HOSTILE = f"{DATA}/hostile_adapters.py"
CLAUSES = ("weights.unbiased", "selection.every-expert-can-win", "robustness.empty-batch")
"""A clause of calls with few experts, one with many, and one of calls without tokens."""

MANY = CLAUSES[1]
FATAL = {
    "Segfaults": ("crash", "killed by SIGSEGV in a call"),
    "Aborts": ("crash", "killed by SIGABRT in a call"),
    "Exits": ("crash", "exited with code 0 in a call"),
    "Hangs": ("timeout", "no answer after 2 s in a call"),
    "HangsDeaf": ("timeout", "no answer after 2 s in a call"),
}
HANGING = ("Hangs", "HangsDeaf")
HARMLESS = (
    "Prints",
    "ReadsInput",
    "ClosesOutput",
    "SpawnsThreads",
    "ChangesFolder",
    "TakesSignals",
    "ChangesFloatMode",
)
SPOILING = ("ReplacesNumpy", "RemovesNumpy")


def ran(*names: str, clauses: tuple[str, ...] = CLAUSES, **how: Any) -> RunResult:
    """Run hostile adapters, by name, or others by reference; two clauses at a time."""
    watch = how.pop("watch", Watch(call_seconds=5.0))
    plan = Plan(clauses=select_clauses(clauses), max_examples=2)
    seats = {
        name: partial(
            Isolated, name if ":" in name else f"{HOSTILE}:{name}", plan, watch=watch, tries=3
        )
        for name in names
    }
    settings = Settings(cases=how.pop("cases", None))
    return check(seats, plan, settings, **{"jobs": 2, **how})


def by_clause(adapter: AdapterResult) -> dict[str, ClauseResult]:
    return {each.id: each for each in adapter.clauses}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AdapterResult]:
    """A run of those that hang, for which two seconds are enough, and of all others."""
    names = tuple(name for name in (*FATAL, *HARMLESS, *SPOILING) if name not in HANGING)
    cases = tmp_path_factory.mktemp("cases")
    soon = ran(*HANGING, cases=cases, watch=Watch(call_seconds=2.0))
    late = ran(*names, "Tame", cases=cases)
    return dict(zip((*HANGING, *names, "Tame"), (*soon.adapters, *late.adapters), strict=True))


@pytest.mark.parametrize("name", FATAL)
def test_an_end_in_a_call_is_a_verdict_with_its_case_and_the_run_goes_on(
    name: str, whole: dict[str, AdapterResult]
) -> None:
    results = by_clause(whole[name])
    ended = results[MANY]
    assert (ended.status, ended.message) == FATAL[name]
    assert isinstance(ended.case, Case)
    assert ended.case.config.num_experts >= 4, "fewer do no harm"
    assert ended.failure.stage == "call"
    case, clause = load_case(Path(ended.case_file))
    assert (case.config, clause) == (ended.case.config, ended.id)
    assert results["robustness.empty-batch"].status == "pass", "a new process takes over"


def test_the_rest_of_the_run_is_intact(whole: dict[str, AdapterResult]) -> None:
    assert {each.status for each in whole["Tame"].clauses} == {"pass"}


def test_the_case_of_a_crash_is_made_smaller_in_fresh_processes(
    whole: dict[str, AdapterResult],
) -> None:
    crashed = by_clause(whole["Segfaults"])[MANY]
    assert crashed.case.inputs.num_tokens <= 2, crashed.case.size
    assert any("hostile_adapters.py:" in line for line in crashed.failure.details), "where it was"


def test_the_story_of_a_crash_shows_the_call_and_what_was_last_written(
    whole: dict[str, AdapterResult],
) -> None:
    call, wrote, *_ = by_clause(whole["Aborts"])[MANY].story
    assert call.startswith("call    T="), call
    assert wrote == "it last wrote 'gate.cu:12: no room'"


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_no_harm_to_the_answers_passes(
    name: str, whole: dict[str, AdapterResult]
) -> None:
    messages = {each.message for each in whole[name].clauses}
    assert {each.status for each in whole[name].clauses} == {"pass"}, messages


def test_the_noise_of_an_adapter_is_not_the_runs(capfd: pytest.CaptureFixture[str]) -> None:
    assert {each.status for each in ran("Prints").adapters[0].clauses} == {"pass"}
    said = capfd.readouterr()
    assert said.out == said.err == ""


@pytest.mark.parametrize("name", SPOILING)
def test_nothing_is_trusted_that_was_computed_with_replaced_functions(
    name: str, whole: dict[str, AdapterResult]
) -> None:
    results = by_clause(whole[name])
    spoiled = results[MANY]
    assert spoiled.status in ("error", "crash"), spoiled.message
    lines = [spoiled.message, *(spoiled.failure.details if spoiled.failure else ())]
    assert any("numpy.sort" in line or "no more sorting" in line for line in lines), lines
    assert results["robustness.empty-batch"].status == "pass", "a fresh process is not spoiled"


def test_what_a_first_call_has_spoilt_is_no_clauses_fault() -> None:
    """The worker's own first call, before any clause: which clause comes first, jobs decide."""
    (adapter,) = ran("ReplacesNumpy", clauses=("robustness.empty-batch",)).adapters
    assert [each.status for each in adapter.clauses] == ["pass"], adapter.clauses[0].message


def test_a_changed_float_mode_is_a_failure_of_its_clause() -> None:
    (adapter,) = ran("ChangesFloatMode", clauses=("invariance.float-mode-unchanged",)).adapters
    assert [each.status for each in adapter.clauses] == ["fail"]


def test_a_crash_that_the_call_alone_does_not_repeat_says_so() -> None:
    crashed = ran("SegfaultsOnce", clauses=("weights.match",)).adapters[0].clauses[0]
    assert crashed.message == "killed by SIGSEGV in a call; the call alone does not reproduce it"
    assert crashed.case is not None


def test_a_crash_outside_any_call_is_a_verdict_without_a_case() -> None:
    crashed = ran("SegfaultsInCapabilities", clauses=("weights.match",)).adapters[0].clauses[0]
    assert (crashed.status, crashed.case) == ("crash", None)
    assert crashed.message == "killed by SIGSEGV before any call"


def test_a_leak_ends_its_process_and_nothing_else() -> None:
    clauses = ("weights.match", "robustness.empty-batch")
    whole = ran("Leaks", "Tame", clauses=clauses, watch=Watch(memory=2**30))
    leaked = by_clause(whole.adapters[0])["weights.match"]
    assert (leaked.status, leaked.case is None) == ("crash", False)
    assert leaked.message.startswith("took more than 1 GiB of memory in a call")
    assert {each.status for each in whole.adapters[1].clauses} == {"pass"}


PLAIN = """
from moe_routing.implementations import Capabilities, Claim
class Adapter:
    name = "plain"
    def capabilities(self): return Capabilities(claims=(Claim.plain(scale=(SCALE,)),))
    def route(self, config, inputs): pass
"""
SECRET = PLAIN + "class Mine(float): pass\nSCALE = Mine(2.5)"
LOCAL = PLAIN + "def made():\n    class Mine(float): pass\n    return Mine(2.5)\nSCALE = made()"
LOADING = {
    "raises": ("raise RuntimeError('no gate')", "error", "RuntimeError: no gate"),
    "dies": ("import ctypes; ctypes.string_at(0)", "crash", "killed by SIGSEGV while it was load"),
    "exits": ("import os; os._exit(7)", "crash", "exited with code 7 while it was loaded"),
    "worse": ("class No(BaseException): pass\nraise No('way')", "crash", "worse.py:2 in <module>"),
    "secret": (SECRET, "error", "sent an answer that cannot be read (ModuleNotFoundError: No m"),
    "local": (LOCAL, "crash", "while it was loaded: AttributeError: Can't pickle local object"),
    "hangs": ("import time; time.sleep(99)", "timeout", "no answer after 1 s while it was loaded"),
}


def test_an_adapter_that_cannot_be_loaded_leaves_the_others_alone(tmp_path: Path) -> None:
    for name, (text, _, _) in LOADING.items():
        (tmp_path / f"{name}.py").write_text(text)
    references = [f"{tmp_path}/{name}.py:Adapter" for name in LOADING]
    *others, hangs = references
    late = ran(hangs, watch=Watch(idle_seconds=1.0))
    whole = ran(*others, "Tame", watch=Watch(idle_seconds=9.0))
    *broken, tame = (*whole.adapters[:-1], *late.adapters, whole.adapters[-1])
    for adapter, (_, status, words) in zip(broken, LOADING.values(), strict=True):
        assert words in adapter.unloaded
        assert [each.status for each in adapter.clauses] == [status] * len(CLAUSES)
    assert {each.status for each in tame.clauses} == {"pass"}
    assert whole.exit_code == 2


def test_jobs_change_nothing_but_the_time() -> None:
    names = ("Exits", "Tame")
    one, three = (found_by(ran(*names, jobs=jobs)) for jobs in (1, 3))
    assert one == three


def found_by(whole: RunResult) -> list[object]:
    return [
        (adapter.name, each.id, each.status, each.message, each.examples, each.allowance_used)
        for adapter in whole.adapters
        for each in adapter.clauses
    ]


class TestAKnownCrash:
    """A crash may be known, too: it is replayed, and does not end the clause."""

    def test_is_known_while_its_witness_still_crashes(self, tmp_path: Path) -> None:
        assert self.status("Segfaults", tmp_path) == "known"

    def test_is_fixed_when_it_does_not(self, tmp_path: Path) -> None:
        assert self.status("Tame", tmp_path) == "fixed"

    def status(self, name: str, folder: Path) -> str:
        crash = RouterConfig(num_experts=4, top_k=1)
        inputs = RouterInputs(hidden=np.eye(4)[:1], gate_weight=np.eye(4))
        entry = Divergence(
            id="four-experts",
            adapters=(name.lower(),),
            clause=MANY,
            reason="it crashes",
            link="https://example.org",
            witnesses=(Case(config=crash, inputs=inputs),),
        )
        plan = Plan(clauses=select_clauses([MANY]), max_examples=2, known=[entry])
        seats = {name: partial(Isolated, f"{HOSTILE}:{name}", plan, tries=3)}
        return check(seats, plan).adapters[0].clauses[0].status
