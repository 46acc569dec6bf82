"""At any width of the terminal a table keeps what matters, whole; logs are no narrow terminals."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("pty", reason="there are no terminals of any width here")

from rich.cells import cell_len
from rich.console import Console
from screens import ESCAPES, on_screen, plain, written

from moe_routing.conformance.cases.files import load_case
from moe_routing.conformance.checking.results import AdapterResult, ClauseResult, RunResult
from moe_routing.conformance.checking.status import STATUSES
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.report.plain import LOG
from moe_routing.conformance.report.terminal import Terminal
from moe_routing.conformance.zoo.census.census import Census
from moe_routing.conformance.zoo.census.console import Watcher
from moe_routing.conformance.zoo.census.matrix import Count, Kill, Task
from moe_routing.conformance.zoo.census.plan import CensusPlan
from moe_routing.conformance.zoo.census.smallest import Smallest
from moe_routing.conformance.zoo.residents import MUTANTS
from moe_routing.implementations import registered

DATA = Path(__file__).parents[1] / "data"
WRONG = f"{DATA}/wrong_adapters.py:BiasedWeights"
WIDTHS = (60, 80, 100, 140)
QUICK = ("--clause=weights.unbiased", "--clause=selection.zero*", "--max-examples=2")
NAMES = list(registered())

WHOLE = AdapterResult(
    name="whole",
    package="a-package",
    version="1.0",
    numerics=[],
    clauses=tuple(
        ClauseResult(
            id=clause.id,
            level=clause.level,
            chapter=clause.chapter,
            status=status,
            examples=100,
            tokens=72139,
            seconds=12.5,
            allowance_used=1.0,
            message=f"{status} it is, " + "and for a reason that no narrow terminal has room for",
        )
        for clause, status in zip(CLAUSES.values(), [*STATUSES] * 9, strict=False)
    ),
    reference="whole.py:Whole",
)


def run_of(*adapters: AdapterResult) -> RunResult:
    return RunResult(profile="ci", seed=0, max_examples=100, environment={}, adapters=adapters)


def shown(run: RunResult, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, soft_wrap=True)
    terminal = Terminal(console, several=len(run.adapters) > 1)
    for each in run.adapters:
        terminal.end(replace(each, clauses=tuple(c for c in each.clauses if c.green)))
    if len(run.adapters) == 1:
        terminal._checked[:] = run.adapters
    terminal.close(run)
    return console.file.getvalue()


@cache
def whole(width: int) -> str:
    return shown(run_of(WHOLE), width)


@pytest.mark.parametrize("width", WIDTHS)
class TestTable:
    def rows(self, width: int) -> list[str]:
        lines = whole(width).splitlines()
        start = next(n for n, line in enumerate(lines) if re.match(" *status +clause", line))
        return lines[start : lines.index("", start)]

    def test_keeps_status_clause_level_and_cases_whole(self, width: int) -> None:
        rows = self.rows(width)
        assert rows[0].split()[:4] == ["status", "clause", "level", "cases"]
        for each in WHOLE.clauses:
            row = rf"^ ?{each.status} +{re.escape(each.id)} +{each.level} +100\b"
            assert any(re.match(row, line) for line in rows), each.id

    def test_is_no_wider_than_the_terminal(self, width: int) -> None:
        assert max(map(cell_len, self.rows(width))) <= width

    def test_gives_up_the_note_first_then_the_allowance_then_seconds(self, width: int) -> None:
        heads = self.rows(width)[0].split()
        figures = ["tokens", "used", "s", "note"]
        kept = {60: [], 80: figures[:3], 100: figures[:3], 140: figures}[width]
        assert heads[4:] == kept

    def test_shows_a_note_in_its_row_or_below_it(self, width: int) -> None:
        text = "\n".join(self.rows(width))
        for each in WHOLE.clauses:
            beginning = re.escape(each.message[:30])
            assert re.search(rf"{re.escape(each.id)} .*(\n   )? {beginning}", text), each.id


def adapter(name: str) -> AdapterResult:
    return replace(WHOLE, name=name)


@cache
def matrix(names: tuple[str, ...], width: int) -> str:
    return shown(run_of(*map(adapter, names)), width)


@pytest.mark.parametrize("width", [*WIDTHS, LOG])
@pytest.mark.parametrize("names", [NAMES[:2], NAMES[:5], NAMES, ["twin", "twin"], ["x" * 200, "y"]])
class TestMatrix:
    """It shows every status under its adapter: with signs for words where there is no room."""

    def lines(self, names: list[str], width: int) -> list[str]:
        lines = matrix(tuple(names), width).splitlines()
        start = next(n for n, line in enumerate(lines) if re.match(" ?clause ", line))
        return lines[start : next(n for n, line in enumerate(lines) if ": " in line and n > start)]

    def test_is_no_wider_than_the_terminal(self, names: list[str], width: int) -> None:
        rows = [line for line in self.lines(names, width) if not re.match(r" *\d+  ", line)]
        assert max(map(cell_len, rows)) <= width

    def test_has_every_adapter_by_its_whole_name(self, names: list[str], width: int) -> None:
        lines = self.lines(names, width)
        heads = " ".join(line for line in lines if re.match(" ?clause ", line)).split()
        columns = [head for head in heads if head != "clause"]
        if columns != names:
            assert columns == [str(number) for number, _ in enumerate(names, 1)]
            legend = [line.split() for line in lines if re.match(r" *\d+  \S+$", line)]
            assert legend == [[str(number), name] for number, name in enumerate(names, 1)]

    def test_has_every_clause_whole_with_a_status_an_adapter(
        self, names: list[str], width: int
    ) -> None:
        lines = self.lines(names, width)
        for each in WHOLE.clauses:
            rows = [line for line in lines if line.split()[:1] == [each.id]]
            glyph = STATUSES[each.status].glyph
            assert sum(row.count(f" {glyph}") for row in rows) == len(names), each.id


def test_the_matrix_says_what_its_signs_mean() -> None:
    text = shown(run_of(*map(adapter, NAMES)), 80)
    words = "✓ pass  ✗ fail  ≈ known  ↑ fixed  ! error or crash or timeout  - unsupported"
    assert f"\n{words}\n    ? inconclusive\n" in text


@pytest.mark.parametrize("width", WIDTHS)
class TestOnATerminal:
    """The commands, each on a terminal of that width."""

    @pytest.fixture(autouse=True)
    def _in_a_folder_of_its_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def test_check(self, width: int) -> None:
        code, text = on_screen(["check", WRONG, *QUICK, "--no-isolate"], width)
        assert code == 1
        for row in (r"fail +weights\.unbiased +MUST +1", "pass +selection.zero-bias-is-no-bias +M"):
            assert re.search(rf"^ ?{row}", plain(text), re.M), text

    def test_adapters_are_listed_by_their_whole_names(self, width: int) -> None:
        code, text = on_screen(["adapters"], width)
        assert code == 0
        listing = plain(text).partition("\nout of scope:")[0]
        for name, where in registered().items():
            row = rf"^ ?{re.escape(name)} [^\n]*(\n   )? {re.escape(where)}$"
            assert re.search(row, listing, re.M), name

    def test_diff_cuts_nothing(self, width: int) -> None:
        clause = {"id": "a.b", "constructed": 0, "examples": 9}
        words = "an answer that is described at such a length that no terminal has room for it " * 2
        named = {"name": "mine", "wraps": {"package": None, "version": None}}
        for status, message in (("pass", ""), ("fail", words.strip())):
            clauses = [{**clause, "status": status, "message": message}]
            report = {"schema": 1, "suite_version": "1", "environment": {"packages": {}}}
            report |= {"profile": "ci", "seed": 0, "max_examples": 9}
            report |= {"adapters": [{**named, "clauses": clauses}]}
            Path(f"{status}.json").write_text(json.dumps(report))
        code, text = on_screen(["diff", "pass.json", "fail.json"], width)
        assert code == 1
        assert f"worse     mine a.b: pass -> fail: {words.strip()}\n" in plain(text)

    def test_the_zoo_keeps_mutants_and_clauses_whole(self, width: int) -> None:
        shown = zoo_at(width)
        assert max(map(len, shown.splitlines())) <= width
        assert re.search(r"^seed 0  selection.every-expert-can-win +12,?345 cases", shown, re.M)
        assert re.search(r"caught +\d+ mutants, +\d+ by family", shown)
        for name in MUTANTS:
            assert re.search(rf"^ ?{name} +M\d+\b", shown, re.M), name


def zoo_at(width: int) -> str:
    """The console of a census in which one clause caught every mutant."""
    console = Console(file=io.StringIO(), width=width, highlight=False, soft_wrap=True)
    plan = CensusPlan(
        clauses=("selection.every-expert-can-win",), seeds=(0,), max_examples=9, mutants=(*MUTANTS,)
    )
    (clause,) = plan.clauses
    case = load_case(DATA / "cases" / "grouped-sigmoid.json")[0]
    kills = [
        Kill(mutant=name, clause=clause, seed=0, event="tie", drawn=12, case=case)
        for name in MUTANTS
    ]
    watcher = Watcher(plan, console)
    watcher.show(
        Task(clause=clause, seed=0, max_examples=9, mutants=plan.mutants, variants=("one",)),
        [*kills, Count(clause=clause, seed=0, cases=12345, answers=9)],
    )
    small = {name: Smallest(mutant=name, clause=clause, tokens=1, experts=2) for name in MUTANTS}
    parts = {"plan": plan, "kills": tuple(kills), "alarms": (), "smallest": small}
    watcher.close(Census(**parts, cases=12345, answers=9, seconds=1.0))
    return console.file.getvalue().partition("\nsurvives")[0].partition("\nseed 0: ")[0]


class TestALog:
    """A pipe or a file is no narrow terminal, whatever the environment says of colours."""

    @pytest.mark.parametrize(
        "environment",
        [{}, {"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}, {"FORCE_COLOR": "1", "COLUMNS": "80"}],
    )
    def test_loses_no_column(self, environment: dict[str, str], tmp_path: Path) -> None:
        argv = ["check", WRONG, *QUICK, "--no-isolate", f"--cases={tmp_path}"]
        code, text = written(argv, **environment)
        assert code == 1
        assert ("\x1b" in text) == ("FORCE_COLOR" in environment or "TTY_COMPATIBLE" in environment)
        rows = ESCAPES.sub("", text)
        assert re.search(r"^ status +clause +level +cases +tokens +used +s +note$", rows, re.M)
        row = r"^ fail +weights\.unbiased +MUST .* weights\[0, 0\]=2, but should be"
        assert re.search(row, rows, re.M)

    def test_has_colours_where_they_are_forced(self) -> None:
        assert "\x1b[1m" in written(["clauses", "weights.sum"], FORCE_COLOR="1")[1]
        assert "\x1b" not in written(["clauses", "weights.sum"])[1]
