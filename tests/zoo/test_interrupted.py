"""A run of the zoo that is stopped keeps what it found, and says what did not run."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from moe_routing.conformance.zoo.census.census import Census, take
from moe_routing.conformance.zoo.census.console import Watcher
from moe_routing.conformance.zoo.census.mapper import Mapper, ProcessLost
from moe_routing.conformance.zoo.census.matrix import Found, Task
from moe_routing.conformance.zoo.census.pages import as_json, as_markdown
from moe_routing.conformance.zoo.census.plan import CensusPlan

PLAN = CensusPlan(
    clauses=("weights.scale", "weights.tiny-norm"),
    seeds=(0, 1),
    max_examples=5,
    mutants=("scale-twice", "bias-ignored"),
    variants=("one-ulp-reciprocal",),
)

VARIANTS = CensusPlan(
    clauses=("weights.scale",), seeds=(0,), max_examples=5, variants=("one-ulp-reciprocal",)
)


def raising(error: type[BaseException], after: int) -> Callable[[Task, list[Found]], None]:
    """Return what raises once it was called so many times."""
    left = [after]

    def note(task: Task, found: list[Found]) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise error

    return note


def stopped(after: int = 1) -> Census:
    return take(PLAN, on_task=raising(KeyboardInterrupt, after))


def shown(census: Census) -> str:
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    Watcher(census.plan, console).close(census)
    return console.export_text()


def test_what_ran_is_kept_and_what_did_not_is_known() -> None:
    census = stopped()
    assert {kill.mutant for kill in census.kills if kill.named} == {"scale-twice"}
    assert [(task.clause, task.seed) for task in census.not_run] == [
        ("weights.scale", 1),
        ("weights.tiny-norm", 0),
        ("weights.tiny-norm", 1),
    ]
    assert census.cases > 0
    assert not census.ok


def test_a_whole_run_lacks_nothing() -> None:
    census = take(PLAN, on_task=lambda *_: None)
    assert (census.ended, census.not_run) == ("", ())
    assert "partial" not in as_markdown(census, "moe-routing zoo")


def test_variants_get_what_is_constructed_with_the_first_seed_alone() -> None:
    """It follows from no seed, and made a part of each night five times over."""
    first, again = take(VARIANTS), take(replace(VARIANTS, seeds=(0, 1)))
    drawn = take(replace(VARIANTS, seeds=(1,)))
    constructed = first.cases - 5
    assert constructed > 0
    assert drawn.cases == first.cases, "a run of one seed constructs, whichever it is"
    assert again.cases == first.cases + 5


def test_a_partial_page_says_so_and_calls_nothing_a_survivor() -> None:
    page = as_markdown(stopped(), "moe-routing zoo")
    assert "**Interrupted: this page is partial.** 1 of 4 pairs of clause and seed ran" in page
    assert "**survives**" not in page
    assert "| not yet |" in page
    assert "- seed 0: 1 of 2 mutants caught so far" in page
    assert "seed 1" not in page.partition("## Mutants")[0]
    assert "- 0 of 1 honest variants refused so far" in page
    assert "## Clauses" not in page, "averages over seeds that did not run"


def test_the_json_names_what_did_not_run() -> None:
    found = as_json(stopped())
    assert found["partial"] is True
    assert found["not_run"][0] == {"clause": "weights.scale", "seed": 1}
    assert found["survivors"] == []
    assert as_json(take(PLAN))["partial"] is False


def test_the_console_gives_no_verdict() -> None:
    text = shown(stopped())
    assert "survives" not in text
    assert "interrupted after 1 of 4 pairs of clause and seed: partial, so no verdict" in text
    assert "seed 1" not in text


def test_an_interrupt_while_cases_are_made_smaller_keeps_every_kill(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def smallest(kill: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("moe_routing.conformance.zoo.census.census.smallest", smallest)
    census = take(PLAN)
    assert census.ended == "interrupted"
    assert census.not_run == ()
    assert census.kills
    assert "failing cases were being made smaller" in as_markdown(census, "moe-routing zoo")


def test_results_of_other_processes_come_in_order_and_a_killed_one_loses_no_more_than_its_own() -> (
    None
):
    noted: list[float] = []
    with Mapper(2) as mapper:
        mapper.run(math.sqrt, [4.0 * n * n for n in range(20)], noted.append)
        assert noted == [2.0 * n for n in range(20)]
        noted.clear()
        with pytest.raises(ProcessLost):
            mapper.run(os._exit, [3], noted.append)


def test_a_process_that_was_killed_ends_the_run_with_what_there_is() -> None:
    census = take(PLAN, on_task=raising(ProcessLost, 2))
    assert census.ended == "a process of the run ended"
    assert len(census.not_run) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="interrupts are sent in another way there")
def test_a_group_of_processes_that_is_signalled_leaves_page_and_json(tmp_path: Path) -> None:
    """As ``timeout`` does, and Ctrl-C: every process of the run gets the signal."""
    argv = ["zoo", "one-ulp-reciprocal", "scale-twice", "--clause=weights.scale", "--jobs=2"]
    argv += ["--clause=weights.sum", "--max-examples=4", "--seeds=900"]
    argv += ["--json=zoo.json", "--markdown=zoo.md"]
    run = subprocess.Popen(
        [sys.executable, "-m", "moe_routing.conformance.cli", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    assert run.stdout is not None
    first = run.stdout.readline()
    assert "seed 0" in first, first
    os.killpg(run.pid, signal.SIGTERM)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 1, (out, err)
    assert err == ""
    assert "partial, so no verdict" in out
    found = json.loads((tmp_path / "zoo.json").read_text())
    assert found["partial"] is True
    assert 0 < len(found["not_run"]) < 1800
    assert "this page is partial" in (tmp_path / "zoo.md").read_text()
    assert ended(run.pid), "no process of the run outlives it"


def ended(group: int) -> bool:
    """Whether a group of processes is gone within five seconds."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False
