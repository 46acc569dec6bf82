"""Progress: lines at once in a log, a bar with time and failures on a terminal, never a mix."""

from __future__ import annotations

import io
import re
import subprocess
import threading
from pathlib import Path

import pytest

pytest.importorskip("pty", reason="there are no terminals here")

from rich.console import Console
from screens import command, on_screen, plain, surroundings, written

from moe_routing.conformance.checking.results import ClauseResult
from moe_routing.conformance.report.progress import EVERY, Lines
from moe_routing.conformance.zoo.census.console import Watcher
from moe_routing.conformance.zoo.census.matrix import Task
from moe_routing.conformance.zoo.census.plan import CensusPlan

WRONG = f"{Path(__file__).parents[1]}/data/wrong_adapters.py:BiasedWeights"
QUICK = ("--clause=weights.unbiased", "--clause=weights.sum", "--max-examples=2")
REPAINTED = re.compile(r"\r(?!\n)|\x1b\[\d*[A-GJKsu]|\x1b\[\?")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def result(status: str, message: str = "") -> ClauseResult:
    parts = {"id": "weights.sum", "level": "MUST", "chapter": "weights"}
    return ClauseResult(**parts, status=status, message=message)


class TestLines:
    @pytest.fixture
    def now(self) -> list[float]:
        return [1000.0]

    def lines(self, now: list[float], *, several: bool = False) -> tuple[Lines, io.StringIO]:
        console = Console(file=io.StringIO(), width=60, highlight=False, soft_wrap=True)
        return Lines(console, several=several, clock=lambda: now[0]), console.file

    def test_say_what_is_checked_and_what_is_red_at_once(self, now: list[float]) -> None:
        lines, log = self.lines(now)
        lines.open(["mine.py:Mine"], 3)
        lines.begin("mine", 3)
        for n, each in enumerate(
            [result("pass"), result("fail", "it is\x1b wrong"), result("known")]
        ):
            lines.started("weights.sum")
            now[0] += 4.0 - n
            lines.finished(each)
        lines.pause()
        assert log.getvalue().splitlines() == [
            "checking mine.py:Mine: 3 clauses",
            "0:07  fail  weights.sum: it is\\x1b wrong",
        ]

    def test_of_several_name_each(self, now: list[float]) -> None:
        lines, log = self.lines(now, several=True)
        lines.open(["one", "two"], 1)
        for name in ("one", "two"):
            lines.begin(name, 1)
            lines.started("weights.sum")
            now[0] += 3599.5
            lines.finished(result("crash", "killed by [SIGSEGV]"))
        assert log.getvalue().splitlines() == [
            "checking 2 adapters: 1 clause each",
            "0:00  one",
            "59:59  crash  one weights.sum: killed by [SIGSEGV]",
            "59:59  two",
            "1:59:59  crash  two weights.sum: killed by [SIGSEGV]",
        ]

    def test_count_as_red_what_stays_so(self, now: list[float]) -> None:
        """Clauses may be checked again past an edge, before the adapter ends."""
        lines, log = self.lines(now, several=True)
        for name, red in (("one", 1), ("two", 0)):
            lines.begin(name, 2)
            for _ in range(2):
                lines.finished(result("fail"))
            lines.settle(red)
        now[0] += EVERY
        lines.started("weights.sum")
        assert log.getvalue().splitlines()[-1] == "0:10  2 of 2 clauses, 1 red, now weights.sum"

    def test_show_now_and_then_where_the_run_is(self, now: list[float]) -> None:
        lines, log = self.lines(now)
        lines.open(["mine"], 9)
        lines.begin("mine", 9)
        for _ in range(4):
            lines.started("weights.sum")
            now[0] += EVERY * 0.6
            lines.finished(result("pass"))
        assert log.getvalue().splitlines()[1:] == ["0:12  2 of 9 clauses, 0 red, now weights.sum"]


SLOW = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(Path(WRONG.rpartition(":")[0]).parent)!r})
from wrong_adapters import BiasedWeights
class Slow(BiasedWeights):
    def route(self, config, inputs):
        while inputs.num_tokens == 0 and not Path("go").exists(): time.sleep(0.05)
        return super().route(config, inputs)
"""


class TestALog:
    def test_is_written_while_the_run_goes_on(self) -> None:
        Path("slow.py").write_text(SLOW)
        argv = command("check", "slow.py:Slow", QUICK[0], "--clause=robustness.empty-batch")
        run = subprocess.Popen(argv, stdout=subprocess.PIPE, env=surroundings(), text=True)
        late = threading.Timer(60, run.kill)
        late.start()
        first = [run.stdout.readline() for _ in range(2)]
        ended = run.poll() is not None
        Path("go").touch()
        run.communicate()
        late.cancel()
        assert not ended
        assert first[0] == "checking slow.py:Slow: 2 clauses\n"
        assert re.match(r"0:\d\d  fail  weights\.unbiased: weights\[0, 0\]=2", first[1])

    @pytest.mark.parametrize(
        "environment", [{}, {"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}, {"CI": "true"}]
    )
    def test_has_lines_and_no_bar(self, environment: dict[str, str]) -> None:
        code, log = written(["check", "reference", WRONG, *QUICK, "--no-isolate"], **environment)
        assert code == 1
        assert not REPAINTED.search(log)
        assert log.startswith("checking 2 adapters: 2 clauses each\n0:0")

    def test_of_a_ci_service_with_a_terminal_has_no_bar(self) -> None:
        code, log = on_screen(["check", WRONG, *QUICK, "--no-isolate"], 100, CI="true")
        assert code == 1
        assert not REPAINTED.search(log)
        assert f"checking {WRONG}: 2 clauses\n" in log

    def test_of_the_census_is_written_at_once(self) -> None:
        class Log(io.StringIO):
            flushed = ""

            def flush(self) -> None:
                self.flushed = self.getvalue()

        log, clause = Log(), "weights.sum"
        plan = CensusPlan(clauses=(clause,), seeds=(0,), max_examples=1)
        watcher = Watcher(plan, Console(file=log, width=100))
        watcher.show(Task(clause=clause, seed=0, max_examples=1), [])
        assert log.flushed == f"seed 0  {clause:34}      0 cases\n"


class TestATerminal:
    @pytest.mark.parametrize("width", [60, 80, 100, 140])
    def test_has_a_bar_with_time_and_failures_and_then_none(self, width: int) -> None:
        code, text = on_screen(["check", WRONG, *QUICK, "--no-isolate"], width)
        assert code == 1
        assert re.search(r"1/2  0:0\d  .{0,20}1 red", text), text
        assert " red" not in plain(text)
        assert "checking" not in text
        assert text.count("\x1b[?25l") == text.count("\x1b[?25h"), "the cursor is shown again"

    def test_shows_the_bar_while_the_next_adapter_is_loaded(self) -> None:
        _, text = on_screen(["check", WRONG, "reference", *QUICK, "--no-isolate"], 80)
        assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 3
        assert " red" not in plain(text)

    @pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"TTY_INTERACTIVE": "0"}])
    def test_that_cannot_repaint_has_lines(self, environment: dict[str, str]) -> None:
        code, text = on_screen(["check", WRONG, *QUICK, "--no-isolate"], 80, **environment)
        assert code == 1
        assert not REPAINTED.search(text)
        assert f"checking {WRONG}: 2 clauses\n" in text
