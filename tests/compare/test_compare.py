"""``moe-routing compare``: who routes alike, who is wrong, exit codes, the files."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.cli import main
from moe_routing.conformance.compare import written
from moe_routing.conformance.compare.cases import picked_cases
from moe_routing.conformance.compare.comparing import Comparison, compare
from moe_routing.conformance.compare.routers import open_routers
from moe_routing.conformance.known.divergence import Divergence
from moe_routing.conformance.run.isolation import Isolated
from moe_routing.conformance.run.session import in_process
from moe_routing.implementations import Capabilities, in_common, load_adapter

DATA = Path(__file__).parents[1] / "data"
HERE = f"{DATA}/comparable_adapters.py"
ALONE = "--no-isolate"
QUICK = ("--clause=robustness.underflow", "--max-examples=2", ALONE)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*argv: str) -> int:
    try:
        return main([*argv])
    except SystemExit as usage:
        return int(usage.code or 0)


def plan_of(clause: str) -> Plan:
    from moe_routing.conformance.clauses import select_clauses

    return Plan(clauses=select_clauses([clause]), max_examples=3)


def compared(
    *names: str, clause: str = "robustness.underflow", known: tuple[Divergence, ...] = ()
) -> Comparison:
    plan = plan_of(clause)
    seats = in_process({each: load_adapter(f"{HERE}:{each}") for each in names}, plan)
    routers = open_routers(seats, dict.fromkeys(seats, known))
    common = in_common({each.name: each.capabilities for each in routers})
    return compare(routers, common, plan, profile="smoke", device="cpu", folder=Path("cases"))


def test_routers_that_break_ties_otherwise_differ_by_ties() -> None:
    found = compared("lowest", "highest")
    total = found.tables.total()
    assert found.exit_code == 0
    assert total.ties > 0
    assert total.differ == total.ties + total.rounding + total.undefined
    assert not found.broken
    (example,) = [each for each in found.examples if each.cause == "ties"]
    assert example.case.num_tokens == 1
    assert (
        main(["replay", example.case_file or "", f"{HERE}:lowest", f"{HERE}:highest", ALONE]) == 0
    )


def test_a_router_of_another_precision_differs_by_rounding() -> None:
    found = compared("lowest", "wide")
    assert found.exit_code == 0
    assert found.tables.total().rounding > 0
    assert "rounding" in {each.cause for each in found.examples}


def test_the_router_that_is_wrong_is_named_with_its_smallest_case() -> None:
    found = compared("lowest", "scale_twice", "highest", clause="weights.scale")
    assert [each.name for each in found.broken] == ["scale-twice"]
    assert found.exit_code == 1
    (example,) = [each for each in found.examples if each.router]
    assert (example.router, example.clause) == ("B", "weights.match")
    assert example.case.num_tokens == 1
    file = example.case_file or ""
    assert file == "cases/compare-lowest-scale-twice-ties-to-the-highest/wrong-B-scale-twice.json"
    assert shlex.split(example.reproduce) == ["moe-routing", "replay", file, "scale_twice"]
    assert main(["replay", file, f"{HERE}:scale_twice", ALONE]) == 1
    assert main(["replay", file, f"{HERE}:lowest", ALONE]) == 0
    assert written.closing(found)[-1].startswith("scale-twice is wrong: the answer to ")


def test_one_that_raises_is_said_and_the_others_are_compared() -> None:
    found = compared("lowest", "highest", "Raises", clause="robustness.underflow")
    total = found.tables.total()
    assert total.failed.keys() == {"C"}
    assert total.tokens > 0
    assert found.exit_code == 1
    (example,) = [each for each in found.examples if each.router]
    assert "too many tokens" in example.title
    assert example.case.num_tokens == 9


def test_one_that_ends_too_often_is_given_no_more_cases() -> None:
    plan = plan_of("robustness.underflow")
    adapters = {each: load_adapter(f"{HERE}:{each}") for each in ("lowest", "highest", "Lost")}
    routers = open_routers(in_process(adapters, plan), dict.fromkeys(adapters, ()))
    settings = {"profile": "smoke", "device": "cpu", "folder": Path("cases")}
    found = compare(routers, Capabilities(), plan, **settings)
    total = found.tables.total()
    assert (total.failed["C"], [each.name for each in found.ended]) == (3, ["lost"])
    assert total.cases > 3
    pair = compare([routers[0], routers[2]], Capabilities(), plan, **settings)
    assert (pair.tables.total().cases, pair.exit_code) == (3, 1)
    assert "nothing was compared" in written.closing(pair)


def test_a_difference_that_does_not_repeat_is_said() -> None:
    found = compared("lowest", "Wavers")
    (example,) = [each for each in found.examples if each.cause == "ties"]
    assert example.title == "differed by ties, but not when it was repeated"
    assert found.exit_code == 0


def test_what_a_known_divergence_covers_is_no_verdict() -> None:
    first = compared("lowest", "scale_twice", clause="weights.scale")
    divergence = Divergence(
        id="twice",
        adapters=("scale-twice",),
        clause="weights.match",
        reason="for the test",
        link="here",
        witnesses=(first.examples[0].case,),
    )
    found = compared("lowest", "scale_twice", clause="weights.scale", known=(divergence,))
    assert found.exit_code == 0
    assert found.tables.total().known == first.tables.total().wrong["B"] > 0
    assert {id_ for _, id_ in found.tables.known} == {"twice"}
    elsewhere = replace(divergence, clause="layout.dtypes")
    assert compared("lowest", "scale_twice", clause="weights.scale", known=(elsewhere,)).broken


def test_every_case_is_one_that_all_of_them_claim() -> None:
    everyone = [load_adapter(each).capabilities() for each in ("scattermoe", "sonicmoe")]
    common = in_common({"a": everyone[0], "b": everyone[1]})
    picked = list(picked_cases(common, everyone, plan_of("weights.*")))
    assert {each.part for each in picked} == {"events", "weights"}
    for each in picked:
        assert all(one.admits(each.case.config, each.case.inputs) for one in everyone)


@pytest.mark.parametrize("width", [80, 70])
def test_the_tables_fit_the_terminal(width: int) -> None:
    found = compared("lowest", "highest", "wide")
    lines = [each.plain for each in written.lines(found, width)]
    tables = lines[: lines.index(next(each for each in lines if "the smallest" in each))]
    assert max(map(len, tables)) <= width, max(tables, key=len)
    assert max(map(len, written.closing(found))) <= 80


class TestCommand:
    def test_exits_0_and_1_and_writes_its_files(self, capsys: pytest.CaptureFixture[str]) -> None:
        files = ("--json=a.json", "--markdown=a.md")
        assert run("compare", f"{HERE}:lowest", f"{HERE}:highest", *QUICK, *files) == 0
        assert "every difference is explained" in capsys.readouterr().out
        form: dict[str, Any] = json.loads(Path("a.json").read_text())
        assert (form["schema"], form["kind"], form["exit_code"]) == (1, "comparison", 0)
        assert [each["name"] for each in form["adapters"]] == ["lowest", "ties-to-the-highest"]
        assert form["total"]["ties"] == sum(each["ties"] for each in form["rows"]) > 0
        assert form["total"]["wrong"] == {"lowest": 0, "ties-to-the-highest": 0}
        assert {"part", "event", "dtype", "experts", "calls_of"} <= set(form["rows"][0])
        assert form["total"]["tokens"] == sum(each["tokens"] for each in form["rows"])
        (file,) = {each["case"] for each in form["smallest"] if each["cause"] == "ties"}
        assert Path(file).is_file()
        text = Path("a.md").read_text()
        assert text.startswith("## moe-routing compare: lowest and ties-to-the-highest\n")
        assert re.search(r"^\| total \|", text, re.MULTILINE)
        wrong = ("--clause=weights.scale", *QUICK[1:])
        assert run("compare", f"{HERE}:lowest", f"{HERE}:scale_twice", *wrong) == 1
        assert "scale-twice is wrong" in capsys.readouterr().out

    def test_exits_1_where_nothing_was_compared(self, capsys: pytest.CaptureFixture[str]) -> None:
        clause = ("--clause=permutation.*", ALONE)
        assert run("compare", f"{HERE}:lowest", f"{HERE}:highest", *clause) == 1
        assert "nothing was compared" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("argv", "words"),
        [
            (["{}:lowest"], "two different adapters or more"),
            (["{}:lowest", "{}:lowest"], "two different adapters or more"),
            (["{}:softmax", "{}:sigmoid"], "softmax and sigmoid have nothing in common: score="),
            (["{}:lowest", "no-such-one"], "Unknown adapter 'no-such-one'"),
            (["{}:lowest", "{}:NoRoute"], "no-route has no method route"),
            (["{}:lowest", "{}:highest", "--max-examples=0"], "must be 1 or more"),
            (["{}:lowest", "{}:highest", "--json=a", "--markdown=a"], "are one file"),
        ],
    )
    def test_exits_2_with_one_line(
        self, argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("compare", *(each.format(HERE) for each in argv), *QUICK) == 2
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1

    def test_a_dtype_that_not_all_claim_is_said(self, capsys: pytest.CaptureFixture[str]) -> None:
        given = ("compare", f"{HERE}:lowest", f"{HERE}:narrow", *QUICK)
        assert run(*given, "--dtype=float32") == 0
        assert run(*given, "--dtype=float16") == 2
        assert "--dtype float16: all of them claim only float32" in capsys.readouterr().err


def test_an_isolated_adapter_that_crashes_gives_no_answer_and_then_goes_on() -> None:
    everyone = [Capabilities()]
    case = next(picked_cases(Capabilities(), everyone, plan_of("weights.sum"))).case
    seat = Isolated(f"{DATA}/hostile_adapters.py:Exits", Plan(clauses=()))
    try:
        answered = seat.answer(case)
        assert (answered.answer, answered.status) == (None, "crash")
        assert seat.about().name
    finally:
        seat.close()
