"""The page of performance: its tables are those of the JSON next to it; one command makes both."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bench_clocks
import numpy as np
import pytest
from bench_clocks import device_time, taking_turns
from bench_inputs import SMALL, SPREADS, inputs_of, least_traffic, router
from bench_page import PAGE, measured, of_all, tables, with_tables, write_page
from bench_sampler import part_of

from moe_routing.reference import RouterInputs, preset, route

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MACHINE = {"suite": "1", "python": "3", "cpu": "a processor", "cpus": 2, "threads": "1"}
MACHINE |= {"device": "cpu", "load": 0.5, "packages": {"numpy": "2"}}


def found(*rows: dict[str, object]) -> dict[str, object]:
    return {"environment": MACHINE, "rows": list(rows)}


def row(**values: object) -> dict[str, object]:
    return {"table": "A case", "row": "judge", "column": "T=1", "median_ms": 0.01234, **values}


@pytest.mark.parametrize("file", sorted(DOCS.glob("performance*.json")), ids=lambda f: f.name)
def test_the_page_has_the_tables_of_what_was_measured(file: Path) -> None:
    text = (DOCS / PAGE).read_text(encoding="utf-8")
    again = with_tables(text, file.name, json.loads(file.read_text(encoding="utf-8")))
    assert again == text, "write the page anew: python benchmarks/bench_page.py docs"


def test_rows_of_one_name_stand_side_by_side() -> None:
    text = tables(found(row(), row(column="T=2", median_ms=1234.5)))
    assert "| | T=1 | T=2 |\n|---|---|---|\n| judge | 0.0123 ms | 1234 ms |" in text


def test_a_share_is_the_least_traffic_over_what_was_copied_meanwhile() -> None:
    traffic = {"least_bytes": 1000, "copy_bandwidth": 1e9, "whole_call": True}  # a microsecond
    assert "| judge | 0.0100 ms (10.0%)* |" in tables(found(row(median_ms=0.01, **traffic)))


def test_rates_and_parts_have_rows_of_their_own() -> None:
    rated = tables(found(row(median_ms=2.0, token_routings=1000)))
    assert "| judge, million token-routings a second | 0.50 |" in rated
    parted = tables(found(row(median_ms=2500.0, parts={"the judge": 0.25})))
    assert "| the judge | 25% |\n| judge | 2.5 s |" in parted


def test_a_row_says_how_many_times_another_takes() -> None:
    eager, other = row(row="eager", median_ms=2.0), row(row="eager", column="T=2", median_ms=9.0)
    text = tables(found(eager, other, row(median_ms=4.2, over="eager")))
    assert "| judge, times eager | 2.1 |  |" in text


def test_only_the_machine_and_the_medians_are_kept() -> None:
    stats = {"median": 0.00123456, "iqr": 0.0001, "rounds": 5, "data": [1.0]}
    bench = {"extra_info": {"table": "A case"}, "stats": stats, "fullname": "/home/me/x.py"}
    raw = {"environment": MACHINE, "benchmarks": [bench], "machine_info": {"node": "my-host"}}
    row = {"table": "A case", "median_ms": 1.235, "iqr_ms": 0.1, "rounds": 5}
    assert measured(raw) == {"environment": MACHINE, "rows": [row]}


def test_tables_are_replaced_in_their_place_and_others_stay(tmp_path: Path) -> None:
    page = tmp_path / PAGE
    page.write_text("# Speed\n\n<!-- tables of performance.json -->\nold\n"
                    "<!-- end of performance.json -->\n\nProse.\n")  # fmt: skip
    for name in ("performance.json", "performance-gpu.json"):
        (tmp_path / name).write_text(json.dumps(found(row())))
    write_page(tmp_path)
    text = page.read_text()
    assert "old" not in text
    assert text.index("0.0123 ms") < text.index("Prose.") < text.index("performance-gpu.json")
    write_page(tmp_path)
    assert page.read_text() == text


def test_what_several_processes_measured_is_as_if_one_had() -> None:
    def of(load: float, *names: str) -> dict[str, Any]:
        machine = {**MACHINE, "load": load, "jobs": 2}
        rows = [{"fullname": name} for name in names]
        return {"environment": machine, "order": ["a", "b", "c", "d"], "benchmarks": rows}

    joined = of_all([of(1.0, "a", "c"), of(3.0, "b")])
    assert [each["fullname"] for each in joined["benchmarks"]] == ["a", "b", "c"]
    assert joined["environment"]["load"] == 3.0
    words = tables({"environment": joined["environment"], "rows": []})
    assert "1 thread(s), 2 benchmarks at a time, each on a core of its own, a load of 3.0" in words


def test_shares_are_all_benchmarks_and_none_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_from_file_location("bench_conftest", ROOT / "benchmarks" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    settings = module_from_spec(spec)
    spec.loader.exec_module(settings)

    def item(n: int) -> SimpleNamespace:
        """The first six are of three calls, each timed twice."""
        spec = SimpleNamespace(params={"size": n // 2, "name": n} if n < 6 else {})
        added = {"callspec": spec, "path": "x.py", "add_marker": lambda marker: None}
        return SimpleNamespace(nodeid=str(n), **added)

    taken = []
    for k in range(3):
        options = {"--device": "cpu", "--share": f"{k}/3"}
        config = SimpleNamespace(stash=pytest.Stash(), getoption=options.__getitem__)
        items = [item(n) for n in range(12)]
        settings.pytest_collection_modifyitems(config, items)
        assert config.stash[settings.ORDER] == [each.nodeid for each in map(item, range(12))]
        taken.append([int(each.nodeid) for each in items])
    assert taken == [[0, 1, 6, 9], [2, 3, 7, 10], [4, 5, 8, 11]]


def test_one_process_at_a_time_uses_the_device(tmp_path: Path) -> None:
    with taking_turns(tmp_path / "turns"), pytest.raises(BlockingIOError):
        fcntl.flock((tmp_path / "turns").open(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    with taking_turns(tmp_path / "turns"):
        pass


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--jobs", "0"], "Expected --jobs from 1 to "),
        (["--jobs", "100000"], "the cores here, but got 100000"),
        (["--jobs", "abc"], "argument --jobs: invalid int value: 'abc'"),
        (["--kernels"], "Expected --device cuda with --kernels: they run on a GPU alone"),
        (["--device", "cuda"], "--device cuda needs a GPU that torch "),
    ],
)
def test_an_option_that_cannot_be_is_refused(options: list[str], words: str) -> None:
    command = [sys.executable, str(ROOT / "benchmarks"), "nowhere", *options]
    without = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=without)
    assert done.returncode == 2
    assert words in done.stderr


@pytest.mark.parametrize("spread", SPREADS)
def test_inputs_spread_as_they_say(spread: str) -> None:
    inputs = next(inputs_of("mixtral", SMALL, spread, "float32", "hidden"))
    answer = route(router("mixtral", SMALL), inputs)
    load = np.bincount(answer.expert_ids.ravel(), minlength=SMALL.experts)
    most = {"uniform": 0.25, "skewed": 0.5, "all-to-one": 0.5, "tie-heavy": 0.5}[spread]
    least = {"uniform": 0.0, "skewed": 0.3, "all-to-one": 0.5, "tie-heavy": 0.0}[spread]
    assert least <= load.max() / load.sum() <= most, load
    tied = (np.diff(np.sort(answer.logits, axis=1)) == 0.0).any(axis=1)
    assert tied.all() if spread == "tie-heavy" else not tied.any()


def test_inputs_differ_in_turn_and_outgrow_the_caches() -> None:
    first, second, *rest = inputs_of("deepseek_v3", SMALL, "uniform", "bfloat16", "hidden")
    assert len(rest) > 10
    assert not np.array_equal(first.hidden, second.hidden)
    assert np.array_equal(first.gate_weight, second.gate_weight)


@pytest.mark.parametrize("takes", ["hidden", "logits"])
def test_the_least_traffic_counts_what_must_be_read_and_written(takes: str) -> None:
    config = router("deepseek_v3", SMALL)
    inputs: RouterInputs = next(inputs_of("deepseek_v3", SMALL, "uniform", "bfloat16", takes))
    read = 64 * 8 if takes == "logits" else 64 * 64 + 8 * 64
    assert least_traffic(config, inputs, takes) == 2 * read + 4 * 8 + 64 * 2 * (4 + 4)
    assert preset("deepseek_v3").selection_bias is not None


SUITE = "moe_routing.conformance"


@pytest.mark.parametrize(
    ("modules", "part"),
    [
        ([f"{SUITE}.trial", f"{SUITE}.judge.scores", "numpy"], "the judge"),
        ([f"{SUITE}.trial", "moe_routing.implementations.torch_eager", "torch.x"], "the backend"),
        ([f"{SUITE}.judge"], "the judge"),
        ([f"{SUITE}.judges"], "the clauses and the rest of the suite"),
        (["my.conformance.judge", "hypothesis_like", None], "everything else"),
        ([], "everything else"),
    ],
)
def test_a_sample_belongs_to_the_innermost_part(modules: list[str | None], part: str) -> None:
    frame = None
    for name in modules:
        frame = SimpleNamespace(f_globals={} if name is None else {"__name__": name}, f_back=frame)
    assert part_of(frame) == part


def test_one_command_measures_and_writes(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks"), str(tmp_path), "-q"]
    chosen = ["--adapter=torch*", "-k", "torch and mixtral and 64 and not (256 or torchtitan)"]
    alone = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    done = subprocess.run([*command, *chosen], cwd=ROOT, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    saved = json.loads((tmp_path / "performance.json").read_text())
    assert "torch" in {each["column"] for each in saved["rows"]}
    assert "### The router of mixtral" in (tmp_path / PAGE).read_text()
    assert str(ROOT) not in json.dumps(saved)


def test_device_time_adds_up_the_distances_of_events(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    times = iter([1000.0, 1002.5, 1010.0])

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at = next(times)

        def synchronize(self) -> None:
            pass

        def elapsed_time(self, later: Event) -> float:
            return later.at - self.at

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(bench_clocks, "_readings", [])
    assert [device_time() for _ in range(3)] == pytest.approx([0.0, 0.0025, 0.01])
