"""A run keeps what it has found, whatever ends, or goes missing, before it is over."""

from __future__ import annotations

import errno
import json
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import state_of

from moe_routing.conformance import (
    Case,
    Divergence,
    Plan,
    RunResult,
    Settings,
    check,
    select_clauses,
)
from moe_routing.conformance.checking.results import AdapterResult
from moe_routing.conformance.cli import clauses, main
from moe_routing.conformance.run.engine import ClauseFinished, ClauseStarted
from moe_routing.conformance.run.isolation import Isolated
from moe_routing.conformance.run.isolation.journal import Journal, read_entry, read_mark
from moe_routing.conformance.run.session import in_process
from moe_routing.conformance.zoo import nearest
from moe_routing.implementations import load_adapter
from moe_routing.reference import RouterConfig, RouterInputs

DATA = Path(__file__).parents[1] / "data"
DIES_IN_THE_SECOND = ("weights.sum", "robustness.empty-batch", "robustness.one-token")
"""Clauses of which only the second has calls without tokens at 2 draws, in which LoadsOnce dies."""
THREE = ("weights.sum", "weights.scale", "robustness.empty-batch")

FILE = f"""
import ctypes, os, sys
from dataclasses import replace
from pathlib import Path
from moe_routing.implementations import BackendMissing, Capabilities
from moe_routing.reference import route
sys.path.insert(0, {str(DATA)!r})
from hostile_adapters import Tame

class Named(Tame):
    name = "named"
    def __init__(self): Path("pid").write_text(str(os.getpid()))

class LoadsOnce(Tame):
    name = "loads-once"
    def __init__(self):
        if Path("loaded").exists(): os._exit(7)
        Path("loaded").touch()
    def route(self, config, inputs):
        if len(inputs.hidden) == 0: ctypes.string_at(0)
        return super().route(config, inputs)

class NoGroups:
    name = "no-groups"
    def capabilities(self): return Capabilities()
    def route(self, config, inputs):
        if config.groups is not None: raise BackendMissing("groupedlib is not installed")
        right = route(config, inputs)
        return replace(right, weights=right.weights * 2)

class CannotClose:
    name = "cannot-close"
    def capabilities(self): return Capabilities()
    def route(self, config, inputs): return route(config, inputs)
    def close(self): raise ERROR("closed\\nbefore")
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    Path("temporary").mkdir()
    Path("mine.py").write_text(FILE)


class Heard:
    """A writer that records its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def begin(self, adapter: str, clauses: int) -> None:
        self.calls.append(f"begin {adapter}")

    def started(self, event: ClauseStarted) -> None:
        return

    def finished(self, event: ClauseFinished) -> None:
        self.calls.append(event.result.status)

    def end(self, result: AdapterResult) -> None:
        self.calls.append(f"end {result.name}")


class Kills(Heard):
    """A writer that ends the worker as soon as it has answered to a clause."""

    def __init__(self, *clauses: str) -> None:
        super().__init__()
        self._clauses = clauses

    def finished(self, event: ClauseFinished) -> None:
        if event.result.id in self._clauses:
            pid = int(Path("pid").read_text())
            os.kill(pid, signal.SIGKILL)
            while state_of(pid) != "Z":
                time.sleep(0.01)


def ran(name: str, clauses: Sequence[str] = THREE, known: Any = (), **how: Any) -> RunResult:
    plan = Plan(clauses=select_clauses(clauses), max_examples=2, known=known)
    seats = {"mine": partial(Isolated, f"mine.py:{name}", plan, tries=3)}
    settings = Settings(cases=how.pop("cases", None))
    return check(seats, plan, settings, **how)


def statuses(run: RunResult) -> list[str]:
    return [each.status for each in run.adapters[0].clauses]


class TestAWorkerThatEndsBetweenRequests:
    def test_is_the_crash_of_the_clause_that_is_checked_next(self) -> None:
        whole = ran("Named", writers=[Kills(THREE[0])])
        assert statuses(whole) == ["pass", "crash", "pass"]
        crashed = whole.adapters[0].clauses[1]
        assert crashed.message == "killed by SIGKILL before any call"
        assert crashed.case is None, "the last case is of another clause"

    def test_takes_nothing_with_it_where_no_clause_is_left(self) -> None:
        assert statuses(ran("Named", writers=[Kills(THREE[-1])])) == ["pass"] * 3
        assert not [*Path("temporary").iterdir()], "its folder should go"

    def test_says_nothing_of_the_witness_that_was_to_be_replayed(self) -> None:
        inputs = RouterInputs(hidden=[[1.0]], gate_weight=[[1.0], [2.0]])
        entry = Divergence(
            id="gone",
            adapters=("named",),
            clause=THREE[1],
            reason="it was wrong",
            link="https://example.org",
            witnesses=(Case(config=RouterConfig(num_experts=2, top_k=1), inputs=inputs),),
        )
        assert statuses(ran("Named", known=[entry])) == ["pass", "fixed", "pass"]
        whole = ran("Named", known=[entry], writers=[Kills(THREE[0])])
        assert statuses(whole) == ["pass", "crash", "pass"]

    def test_is_distinguished_from_one_that_ends_before_its_first_call(self) -> None:
        journal = Journal(Path("journal"))
        before = read_mark(Path("journal"))
        journal.cleared()
        assert read_mark(Path("journal")) != before, "a request was begun"

    def test_is_read_from_the_journal_of_the_same_case_called_again(self) -> None:
        journal = Journal(Path("journal"))
        inputs = RouterInputs(hidden=np.ones((1, 1)), gate_weight=np.ones((2, 1)))
        case = Case(config=RouterConfig(num_experts=2, top_k=1), inputs=inputs)
        for _ in range(3):
            journal.calling(case)
            before = read_mark(Path("journal"))
            journal.returned()
        journal.calling(case)
        assert read_mark(Path("journal")) != before, "another call was begun"
        entry = read_entry(Path("journal"))
        assert (entry.state, entry.case.size) == ("c", case.size)


class TestAnAdapterThatCannotGoOn:
    def test_keeps_the_crash_after_which_it_cannot_be_loaded(self) -> None:
        whole = ran("LoadsOnce", DIES_IN_THE_SECOND, cases=Path("cases"))
        assert statuses(whole) == ["pass", "crash", "crash"]
        _, crashed, unchecked = whole.adapters[0].clauses
        assert crashed.message == "killed by SIGSEGV in a call"
        assert Path(crashed.case_file).is_file()
        assert unchecked.message == "mine.py:LoadsOnce: exited with code 7 while it was loaded"
        assert (whole.adapters[0].unloaded, whole.exit_code) == (unchecked.message, 2)

    def test_keeps_what_failed_before_its_backend_was_missing(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        argv = ["check", "mine.py:NoGroups", "--clause=scores.match", "--clause=groups.all-kept"]
        assert main([*argv, "--max-examples=2", "--no-isolate"]) == 2
        said = capsys.readouterr()
        assert Path("moe-routing-cases/no-groups/scores.match.json").is_file()
        assert said.err == "moe-routing: groupedlib is not installed\n"
        assert said.out.count("Reproduce with: ") == 1, "what was not run has no story"
        tally = "no-groups: 1 failed, 1 errored; 2 of 2 clauses apply, score 0/59"
        assert f"{tally}; could not go on\n" in said.out

    def test_is_ended_where_it_was_begun(self) -> None:
        heard = Heard()
        ran("LoadsOnce", DIES_IN_THE_SECOND, writers=[heard])
        assert heard.calls == ["begin loads-once", "pass", "crash", "end loads-once"]
        heard = Heard()
        ran("Nobody", writers=[heard])
        assert heard.calls == []


class TestWhatComesAfterTheLastAnswer:
    @pytest.mark.parametrize("error", ["RuntimeError", "SystemExit"])
    def test_what_close_raises_is_reported_in_one_line(
        self, error: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("mine.py").write_text(FILE.replace("ERROR", error))
        argv = ["check", "mine.py:CannotClose", "--clause=weights.sum", "--max-examples=2"]
        assert main([*argv, "--no-isolate", "--json=report.json"]) == 0
        assert json.loads(Path("report.json").read_text())["exit_code"] == 0
        assert capsys.readouterr().err == (
            f"moe-routing: cannot-close: close raised {error}: closed before\n"
        )

    def test_a_hint_that_cannot_be_made_is_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nearest, "nearest", lambda *given: 1 // 0)
        wrong = load_adapter(f"{DATA}/wrong_adapters.py:BiasedWeights")
        plan = Plan(clauses=select_clauses(["weights.unbiased"]), max_examples=2)
        (adapter,) = check(in_process({"wrong": wrong}, plan), plan).adapters
        assert ([each.status for each in adapter.clauses], adapter.hints) == (["fail"], ())


def test_a_pipe_that_breaks_elsewhere_is_no_reader_that_went_away(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(arguments: object) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(clauses, "run", broken)
    assert main(["clauses"]) == 2
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "moe-routing: [Errno 32] Broken pipe\n")
