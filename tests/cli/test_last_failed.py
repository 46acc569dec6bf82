"""``--lf``: what was red is run again, and what there is to say where nothing was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moe_routing.conformance.cli import main

WRONG = Path(__file__).parents[1] / "data" / "wrong_adapters.py"
RED, GREEN = f"{WRONG}:BiasedWeights", f"{WRONG}:Router"
FEW = ("--clause=weights.unbiased", "--clause=selection.distinct", "--max-examples=3")
FEW += ("-q", "--no-isolate")
ONE = ("--clause=weights.unbiased", "--max-examples=3", "-q", "--no-isolate")
RECORD = Path("moe-routing-cases/last-failed.json")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def checked(*words: str) -> list[tuple[str, str, str]]:
    main(["check", *words, "--json=report.json"])
    run: dict[str, Any] = json.loads(Path("report.json").read_text())
    return [
        (a["name"], each["id"], each["status"]) for a in run["adapters"] for each in a["clauses"]
    ]


def test_only_what_was_red_is_run_again(capsys: pytest.CaptureFixture[str]) -> None:
    before = checked(RED, GREEN, *FEW)
    red = [each for each in before if each[2] != "pass"]
    assert 0 < len(red) < len(before)
    capsys.readouterr()
    assert checked(RED, GREEN, *FEW, "--lf") == red
    said = capsys.readouterr().err
    clauses = "1 clause" if len(red) == 1 else f"{len(red)} clauses"
    assert said == f"--lf: {clauses} on 1 adapter, red when last run ({RECORD})\n"


def test_where_nothing_was_red_all_is_run_and_nothing_is_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    all_of_it = checked(GREEN, *FEW)
    assert not RECORD.parent.exists(), "a run without a red clause leaves nothing"
    capsys.readouterr()
    assert checked(GREEN, *FEW, "--last-failed") == all_of_it
    said = capsys.readouterr().err
    assert said == f"--lf: {RECORD} has nothing red of this run: all of it is run\n"


def test_what_is_right_now_is_forgotten_and_what_was_not_run_is_kept() -> None:
    Path("mine.py").write_text(WRONG.read_text())
    checked("mine.py:BiasedWeights", *FEW)
    before = json.loads(RECORD.read_text())
    checked("mine.py:BiasedWeights", "--clause=selection.distinct", *ONE[1:])
    assert json.loads(RECORD.read_text()) == before
    Path("mine.py").write_text(f"{WRONG.read_text()}\n\nBiasedWeights = Router\n")
    assert all(each[2] == "pass" for each in checked("mine.py:BiasedWeights", *FEW, "--lf"))
    assert not RECORD.exists()


def test_an_adapter_that_could_not_be_loaded_changes_nothing() -> None:
    Path("mine.py").write_text(WRONG.read_text())
    checked("mine.py:BiasedWeights", *FEW)
    before = RECORD.read_text()
    Path("mine.py").write_text("def broken(:\n")
    assert {each[2] for each in checked("mine.py:BiasedWeights", *FEW)} == {"error"}
    assert RECORD.read_text() == before


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\udcff",
        "[]",
        '{"schema": 2, "red": {}}',
        '{"schema": 1, "red": []}',
        '{"schema": 1, "red": {"cpu": 3}}',
        '{"schema": 1, "red": {"cpu": {"a": [1]}}}',
    ],
)
def test_a_file_that_is_no_record_is_named_by_lf_and_replaced_without_it(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    RECORD.parent.mkdir()
    RECORD.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert main(["check", RED, *FEW, "--lf"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"moe-routing: {RECORD} is ")
    assert line.endswith(": remove it")
    assert main(["check", RED, *ONE]) == 1
    assert json.loads(RECORD.read_text())["red"]["cpu"] == {RED: ["weights.unbiased"]}


def test_it_does_not_go_with_a_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", RED, *FEW, "--lf", "--baseline=report.json"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("remove one of them")


def test_no_report_replaces_the_record(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", RED, *FEW, f"--json={RECORD}"]) == 2
    assert "the record of what was red" in capsys.readouterr().err


def test_a_record_that_cannot_be_written_costs_a_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    RECORD.mkdir(parents=True)
    assert main(["check", RED, *ONE]) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("--lf will not know of this run")
