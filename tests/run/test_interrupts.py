"""Interrupts: a run that is stopped leaves a report that says so, and decides nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moe_routing.conformance.cli import main


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _heed_interrupts() -> None:
    """Undo what a background job of a shell inherits: that interrupts are ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _echo(run: subprocess.Popen[str]) -> None:
    """Interrupt a run again and again for a second, or until it ends, as tox does once."""
    until = time.monotonic() + 1
    while time.monotonic() < until and run.poll() is None:
        time.sleep(0.005)
        run.send_signal(signal.SIGINT)


@pytest.mark.skipif(sys.platform == "win32", reason="interrupts are sent in another way there")
@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_interrupted_run_leaves_a_report_that_says_so(how: str, jobs: str) -> None:
    Path("slow.py").write_text(
        "import time, pathlib\nfrom moe_routing.implementations import Capabilities\n"
        "from moe_routing.reference import RouterConfig, route\n"
        "class Slow:\n"
        "    name = 'slow'\n"
        "    def capabilities(self): return Capabilities()\n"
        "    def route(self, config, inputs):\n"
        "        if inputs.num_tokens == 0:\n"
        "            pathlib.Path('waiting').touch(); time.sleep(600)\n"
        "        return route(RouterConfig(**vars(config)), inputs)\n"
    )
    argv = ["check", "reference", "slow.py:Slow", "--clause=weights.unbiased", "--max-examples=1"]
    argv += ["--clause=robustness.empty-batch", "--json=report.json", f"--jobs={jobs}"]
    run = subprocess.Popen(
        [sys.executable, "-m", "moe_routing.conformance.cli", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=_heed_interrupts,
    )
    while not Path("waiting").exists():
        assert run.poll() is None, run.communicate()
        time.sleep(0.05)
    run.send_signal(getattr(signal, how))
    if how == "SIGINT":
        _echo(run)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 1, (out, err)
    assert "Traceback" not in err
    assert "interrupted: this run is partial, so there is no verdict" in out
    found = json.loads(Path("report.json").read_text())
    assert found["partial"] is True
    assert found["exit_code"] == 1
    reference, *slow = found["adapters"]
    statuses = [each["status"] for each in reference["clauses"]]
    ended = 2 if jobs == "1" else len(statuses)  # a second job is ahead of the first
    assert statuses == ["pass"] * ended
    for each in slow:
        assert [clause["id"] for clause in each["clauses"]] in (["weights.unbiased"], [])
    assert main(["diff", "report.json", "report.json"]) == 2
