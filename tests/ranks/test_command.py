"""``--ranks N``, its refusals, and the same under torchrun."""

from __future__ import annotations

import gc
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from moe_routing.conformance.cli import main
from moe_routing.implementations import AdapterError
from moe_routing.implementations.ranks import launch_of
from moe_routing.implementations.registry import ranked

pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "ranks.md"
FAULTS = Path(__file__).parents[1] / "helpers" / "rank_faults.py"
LAUNCHED = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not here")
def test_the_example_of_the_page_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    (file := tmp_path / "my_ranks.py").write_text(found[1])
    check = ["check", f"{file}:AllGather", "--ranks=2", "--max-examples=1", "--no-isolate"]
    assert main([*check, f"--cases={tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert "4 passed, 4 unsupported" in out
    assert "has no method gradients_on_ranks" in out


def test_a_hang_ends_in_time_and_says_how_to_see_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = ["check", f"{FAULTS}:Hangs", "--ranks=2", "--timeout=6", "--clause=shards.on-ranks"]
    assert main([*check, f"--cases={tmp_path}", "--no-isolate"]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "timeout hangs shards.on-ranks (MUST) no answer from rank 0 in " in out
    assert re.search(r"rank 1 in \S+rank_faults.py:\d+ in sleeps after 2 s", out)
    assert re.search(r"Reproduce with: moe-routing replay \S+ \S+:Hangs --ranks=2", out)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("torch --ranks 0", "argument --ranks: must be 2 or more, not 0"),
        ("torch --ranks 1", "argument --ranks: must be 2 or more, not 1: one rank sends nothing"),
        ("torch --ranks 2 --clause groups.*", "--ranks checks the clauses about ranks alone"),
        ("process:cat --ranks 2", "process:cat cannot run on ranks: it is a process of its own"),
        ("ep:all_to_all", "ep:all_to_all runs on several ranks at once: add --ranks 2"),
    ],
)
def test_what_cannot_run_is_refused_in_a_line(
    words: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["check", *words.split(), f"--cases={tmp_path}", "--no-isolate"])
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == 2
    assert line in capsys.readouterr().err


def test_the_adapters_of_one_rank_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapters", "ep:*"]) == 0
    out = capsys.readouterr().out
    assert "with --ranks N (docs/ranks.md):" in out
    page = ROOT / "docs" / "backends.md"
    for name in ranked():
        assert f"  {name}: " in out
        assert not page.is_file() or f"- `{name}`: " in page.read_text()


def test_a_launcher_is_found_by_its_variables() -> None:
    launch = launch_of(LAUNCHED)
    assert launch is not None
    assert (launch.rank, launch.size, launch.port, launch.has_store) == (1, 2, 29500, False)
    assert launch_of({**LAUNCHED, "WORLD_SIZE": "1"}) is None
    assert launch_of({"RANK": "1", "WORLD_SIZE": "2"}) is None
    with pytest.raises(AdapterError, match="Expected the variable RANK to be a number but got 'x'"):
        launch_of({**LAUNCHED, "RANK": "x"})


def test_another_number_of_ranks_than_the_launcher_has_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    assert main(["check", "torch", "--ranks=3"]) == 2
    assert "--ranks 3 with 2 processes of a launcher" in capsys.readouterr().err


def test_the_processes_of_a_launcher_are_the_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("localhost", 0)) as free:
        variables = {**LAUNCHED, "MASTER_PORT": str(free.getsockname()[1]), "LOCAL_RANK": "1"}
    check = ["check", "torch", "--clause=shards.on-ranks", "--max-examples=1"]
    command = [sys.executable, "-m", "moe_routing.conformance.cli", *check]
    with subprocess.Popen(command, env={**os.environ, **variables}) as second:
        for name, value in {**variables, "RANK": "0", "LOCAL_RANK": "0"}.items():
            monkeypatch.setenv(name, value)
        try:
            assert main([*check, f"--cases={tmp_path}"]) == 0
        finally:
            gc.collect()  # the connection, whose end the second rank waits for
            code = second.wait(20.0)
    assert code == 0
    assert "torch: 1 passed; 1 of 1 clause applies" in capsys.readouterr().out
