"""Forks of a worker: once an adapter has died, its imports are paid for once more in all."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from moe_routing.conformance import Plan, check, select_clauses
from moe_routing.conformance.run.isolation import Isolated
from moe_routing.conformance.run.isolation.forks import in_a_fork
from moe_routing.conformance.run.isolation.isolated import FRESH

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers fork on Linux alone")


class TestAFork:
    def test_that_has_done_its_work_is_nothing_to_report(self, tmp_path: Path) -> None:
        assert in_a_fork(lambda: "made", (tmp_path / "made").write_text) is None
        assert (tmp_path / "made").read_text() == "made"

    @pytest.mark.parametrize(
        ("work", "code"),
        [
            (lambda: os.kill(os.getpid(), signal.SIGKILL), -signal.SIGKILL),
            (lambda: os._exit(0), 0),
            (lambda: os._exit(7), 7),
            (lambda: sys.exit(0), 1),
        ],
        ids=["signal", "silent exit", "exit", "exception"],
    )
    def test_that_has_not_ends_with_a_code(self, work: object, code: int) -> None:
        assert in_a_fork(work) == code

    def test_is_not_waited_for_by_what_it_started(self) -> None:
        def leaves_a_child_behind() -> None:
            if os.fork() == 0:
                time.sleep(20)
                os._exit(0)
            os._exit(3)

        began = time.monotonic()
        assert in_a_fork(leaves_a_child_behind) == 3
        assert time.monotonic() - began < 10


COUNTS = '''
import ctypes
from pathlib import Path

from moe_routing.implementations import Capabilities


class Dies:
    """Dies in every call, and keeps count of its loads and calls."""

    name = "dies"

    def __init__(self):
        self._note("load")

    def capabilities(self):
        return Capabilities()

    def route(self, config, inputs):
        self._note("call")
        ctypes.string_at(0)

    def _note(self, word):
        with Path(__file__).with_name("notes").open("a") as file:
            file.write(word + "\\n")
'''


def test_crashes_load_the_adapter_once_more(tmp_path: Path) -> None:
    (tmp_path / "dies.py").write_text(COUNTS)
    wanted = ["weights.unbiased", "weights.match", "selection.valid-top-k"]
    plan = Plan(clauses=select_clauses(wanted), max_examples=2)
    reference = f"{tmp_path / 'dies.py'}:Dies"
    run = check({reference: partial(Isolated, reference, plan, tries=8)}, plan)
    assert len(run.adapters[0].clauses) == 3
    for crashed in run.adapters[0].clauses:
        assert (crashed.status, crashed.message) == ("crash", "killed by SIGSEGV in a call")
        assert any("dies.py" in line for line in crashed.failure.details), "where it died"
        assert crashed.case is not None
        assert crashed.case.size.startswith("T=1 H=1 "), crashed.case.size
    notes = (tmp_path / "notes").read_text().split()
    assert notes.count("load") == 2, "one that died, one to fork from"
    assert notes.count("call") >= 12, "of each clause: one that crashed, one alone, smaller ones"


def test_an_adapter_that_cannot_be_forked_is_loaded_three_times_more_a_crash(
    tmp_path: Path,
) -> None:
    """One that starts a thread as it is loaded."""
    began = '        self._note("load")\n'
    thread = "        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    text = COUNTS.replace(began, began + thread)
    (tmp_path / "dies.py").write_text("import threading, time\n" + text)
    plan = Plan(clauses=select_clauses(["weights.match"]), max_examples=2)
    reference = f"{tmp_path / 'dies.py'}:Dies"
    run = check({reference: partial(Isolated, reference, plan)}, plan)
    (crashed,) = run.adapters[0].clauses
    assert (crashed.status, crashed.message) == ("crash", "killed by SIGSEGV in a call")
    notes = (tmp_path / "notes").read_text().split()
    assert notes.count("load") == notes.count("call") == 2 + FRESH, "a process for each call"
