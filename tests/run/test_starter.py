"""The starter: workers are its forks, and no adapter can tell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from processes import parent_of, state_of

from moe_routing.conformance import Plan, select_clauses
from moe_routing.conformance.run.isolation import Isolated, start
from moe_routing.conformance.run.seat import CannotRun

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux")

TELLS = """
import json, os, random, signal, sys, threading
from pathlib import Path
import numpy as np
from moe_routing.implementations import Capabilities

class Tells:
    name = "tells"

    def __init__(self):
        numbers = (signal.SIGCHLD, signal.SIGINT, signal.SIGPIPE)
        told = {
            "pid": os.getpid(),
            "session": os.getsid(0),
            "folder": os.getcwd(),
            "mine": os.environ.get("MINE"),
            "drawn": [random.random(), np.random.random()],
            "handlers": [str(signal.getsignal(each)).split(" at ")[0] for each in numbers],
            "files": sorted(int(each) for each in os.listdir("/proc/self/fd")),
            "torch": "torch" in sys.modules,
            "main": threading.current_thread() is threading.main_thread(),
        }
        Path(__file__).with_suffix(".json").write_text(json.dumps(told))

    def capabilities(self):
        return Capabilities()

    def route(self, config, inputs):
        raise NotImplementedError
"""
PLAN = Plan(clauses=select_clauses(["weights.match"]))


class Told:
    """A worker that has loaded the adapter, and what the adapter told of its process."""

    def __init__(self, folder: Path) -> None:
        path = folder / "tells.py"
        path.write_text(TELLS)
        self.seat = Isolated(f"{path}:Tells", PLAN)
        self.seat.about()
        self.said: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
        self.pid: int = self.said["pid"]

    @property
    def starter(self) -> int:
        return parent_of(parent_of(self.pid))


def told(folder: Path) -> dict[str, Any]:
    with_seat = Told(folder)
    with_seat.seat.close()
    return with_seat.said


def gone(*pids: int) -> bool:
    until = time.monotonic() + 20
    while any(state_of(pid) not in ("", "Z") for pid in pids) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(state_of(pid) not in ("", "Z") for pid in pids)


def test_workers_are_forks_of_one_process(tmp_path: Path) -> None:
    one, two = Told(tmp_path), Told(tmp_path)
    try:
        assert one.starter == two.starter
        assert parent_of(one.starter) == os.getpid()
    finally:
        one.seat.close()
        two.seat.close()
    assert state_of(one.pid) in ("", "Z")


def test_a_worker_is_what_a_new_process_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forked = told(tmp_path)
    monkeypatch.setattr(start, "_forks", lambda: False)
    fresh = told(tmp_path)
    assert parent_of(fresh["pid"]) == 0, "it has ended, and was waited for"
    for each in (forked, fresh):
        assert each.pop("pid") == each.pop("session"), "a session of its own"
        each.pop("drawn")
    assert forked == fresh


def test_a_worker_starts_in_the_folder_and_the_environment_of_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert told(tmp_path)["mine"] is None
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("MINE", "yes")
    said = told(tmp_path)
    assert (said["folder"], said["mine"]) == (str(tmp_path / "here"), "yes")


def test_no_two_workers_draw_the_same_numbers(tmp_path: Path) -> None:
    one, two = told(tmp_path)["drawn"], told(tmp_path)["drawn"]
    assert one[0] != two[0], "of Python's generator"
    assert one[1] != two[1], "of NumPy's"


def test_a_starter_that_was_killed_ends_no_worker_and_is_replaced(tmp_path: Path) -> None:
    before = Told(tmp_path)
    try:
        os.kill(before.starter, signal.SIGKILL)
        assert before.seat.about().name == "tells"
        assert told(tmp_path)["pid"] != before.pid
        assert state_of(before.pid) not in ("", "Z"), "it should go on"
    finally:
        before.seat.close()
    assert gone(before.pid)
    assert told(tmp_path)["pid"]


def test_a_guard_that_was_killed_is_a_worker_that_has_ended(tmp_path: Path) -> None:
    """Its number may be another's by then, so no more is known of it."""
    worker = Told(tmp_path)
    os.kill(parent_of(worker.pid), signal.SIGKILL)
    worker.seat.close()
    assert gone(worker.pid)


ENDS = """
import sys
from moe_routing.conformance import Plan, select_clauses
from moe_routing.conformance.run.isolation import Isolated
seat = Isolated(sys.argv[1], Plan(clauses=select_clauses(["weights.match"])))
seat.about()
print("loaded", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("killed", [False, True])
def test_nothing_stays_when_the_run_ends(killed: bool, tmp_path: Path) -> None:
    (tmp_path / "tells.py").write_text(TELLS)
    argv = [sys.executable, "-c", ENDS, f"{tmp_path}/tells.py:Tells"]
    run = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert run.stdout.readline() == b"loaded\n"
    worker = json.loads((tmp_path / "tells.json").read_text())["pid"]
    guard = parent_of(worker)
    starter = parent_of(guard)
    if killed:
        run.kill()
    run.communicate(b"end\n")
    assert gone(worker, guard, starter)


def test_where_nothing_can_be_started_the_reason_is_the_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    monkeypatch.setenv("MINE", "another environment, for another starter")
    with pytest.raises((OSError, CannotRun), match="no-python"):
        told(tmp_path)
