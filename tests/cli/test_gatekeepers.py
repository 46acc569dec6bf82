"""What gatekeepers expect of any tool: its version, an end at the first failure, quiet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moe_routing.conformance import select_clauses
from moe_routing.conformance.cli import main
from moe_routing.reference import SPEC_VERSION

WRONG = f"{Path(__file__).parents[1] / 'data' / 'wrong_adapters.py'}:BiasedWeights"
ROUTER = WRONG.replace("BiasedWeights", "Router")
FEW = ("--clause=weights.*", "--max-examples=5")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def statuses() -> list[str]:
    run: dict[str, Any] = json.loads(Path("report.json").read_text())
    return [each["status"] for adapter in run["adapters"] for each in adapter["clauses"]]


def test_the_version_is_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("moe-routing ")
    assert line.endswith(f", specification {SPEC_VERSION}")


@pytest.mark.parametrize(("option", "most"), [(["-x"], 1), (["--maxfail=2"], 2)])
def test_a_run_ends_after_so_many_red_clauses_and_keeps_what_it_found(
    option: list[str], most: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", WRONG, WRONG, *FEW, *option, "--json=report.json"]) == 1
    found = statuses()
    assert found.count("fail") == most
    assert found[-1] == "fail", "nothing is checked after it"
    assert json.loads(Path("report.json").read_text())["partial"]
    err = capsys.readouterr()
    noun = "clause" if most == 1 else "clauses"
    assert f"stopped after {most} red {noun}: this run is partial" in err.out + err.err


def test_where_fewer_are_red_the_run_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", ROUTER, *FEW, "-x", "--json=report.json"]) == 0
    assert not json.loads(Path("report.json").read_text())["partial"]
    due = [clause for clause in select_clauses(["weights.*"]) if clause.promise is None]
    assert len(statuses()) == len(due)


def test_quiet_is_the_stories_and_the_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", ROUTER, *FEW, "-q"]) == 0
    shown = capsys.readouterr()
    assert [line.split(":")[0] for line in shown.out.splitlines()] == ["right"]
    assert shown.err == ""
    main(["check", WRONG, *FEW, "--quiet"])
    assert "fail biased-weights weights.unbiased (MUST)" in capsys.readouterr().out


def test_a_clause_is_explained_by_its_id(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "weights.unbiased"]) == 0
    explained = capsys.readouterr().out
    assert explained.startswith("weights.unbiased (MUST)  ")
    main(["clauses", "weights.unbiased"])
    assert capsys.readouterr().out == explained


def test_a_mistyped_clause_to_explain_is_not_called_a_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["explain", "weights.unbias"]) == 2
    assert capsys.readouterr().err == (
        "moe-routing: weights.unbias is neither a case file nor a clause: "
        "did you mean weights.unbiased? `moe-routing clauses` lists all\n"
    )
    assert main(["explain", "absent.json"]) == 2
    assert "Cannot read the case file absent.json: No such" in capsys.readouterr().err
