"""The writers of text: nothing is lost, nothing a backend says is taken for a command."""

from __future__ import annotations

import io
import json
import re
import shlex
from pathlib import Path

import pytest
from rich.console import Console

from moe_routing.conformance.checking.results import RunResult
from moe_routing.conformance.cli import main, outputs
from moe_routing.conformance.report.files import FORMATS
from moe_routing.conformance.report.plain import printable
from moe_routing.conformance.report.terminal import Terminal, plain_console
from moe_routing.conformance.report.text import broken, counts, reproduce, story_lines, verdict

WRONG = f"{Path(__file__).parents[1]}/data/wrong_adapters.py:BiasedWeights"
QUICK = ("--clause=weights.unbiased", "--max-examples=3")


class TestText:
    def test_a_story_ends_in_the_command_that_repeats_it(self, wrong_run: RunResult) -> None:
        red = [(a, each) for a in wrong_run.adapters for each in broken(a)]
        assert red, "the wrong adapters should be found out"
        for adapter, clause in red:
            last = story_lines(adapter, clause)[-1]
            assert last.startswith("Reproduce with: moe-routing replay ")
            assert main(shlex.split(last.removeprefix("Reproduce with: moe-routing "))) == 1

    def test_without_a_case_the_clause_is_checked_again(self, every_status: RunResult) -> None:
        (adapter,) = every_status.adapters
        (clause,) = (each for each in adapter.clauses if each.status == "inconclusive")
        words = shlex.split(reproduce(adapter, clause))
        assert words[:2] == ["moe-routing", "check"]
        assert words[-1] == f"--clause={clause.id}"

    def test_says_where_nothing_was_checked(self, nothing_checked: RunResult) -> None:
        assert verdict(nothing_checked) == "nothing was checked"
        total = len(nothing_checked.adapters[0].clauses)
        assert counts(nothing_checked.adapters[0]) == (
            f"nothing was checked: all {total} clauses are unsupported; "
            "most often, the adapter claims nothing"
        )

    def test_shows_what_cannot_be_printed(self) -> None:
        assert printable("a\x1b[0m\x00\u0085\ud800b\tc\nd é 你") == (
            "a\\x1b[0m\\x00\\x85\\ud800b\tc\nd é 你"
        )


class TestTerminal:
    def shown(self, run: RunResult, **options: bool) -> str:
        console = Console(file=io.StringIO(), width=200, highlight=False, soft_wrap=True)
        terminal = Terminal(console, **options)
        for adapter in run.adapters:
            terminal.begin(adapter.name, len(adapter.clauses))
            terminal.end(adapter)
        terminal.close(run)
        return console.file.getvalue()

    def test_several_adapters_have_a_matrix(self, wrong_run: RunResult) -> None:
        text = self.shown(wrong_run, several=True)
        heads = re.findall(r"^ *clause +reference +biased-weights +last-expert-lost", text, re.M)
        assert len(heads) == 1
        assert re.search(r"^ *weights\.unbiased +✓ pass +✗ fail +✓ pass", text, re.M), text
        assert "cases  tokens" not in text, "a table for each would bury the matrix"

    def test_one_adapter_has_a_table(self, every_status: RunResult) -> None:
        text = self.shown(every_status)
        assert re.search(r"status +clause +level +cases +tokens", text)
        for each in every_status.adapters[0].clauses:
            assert re.search(rf"^ *{each.status} +{re.escape(each.id)} ", text, re.M), each.id

    def test_shows_hostile_text_literally(self, every_status: RunResult, hostile: str) -> None:
        text = self.shown(every_status)
        assert printable(hostile) in text
        assert "\x1b" not in text

    def test_says_where_nothing_was_checked(self, nothing_checked: RunResult) -> None:
        last = self.shown(nothing_checked).splitlines()[-1]
        assert last.startswith("idle: nothing was checked: all ")


class TestFiles:
    def test_every_format_has_an_option(self) -> None:
        from moe_routing.conformance.cli.outputs import FILES

        assert list(FILES) == list(FORMATS)

    def test_one_check_writes_them_all(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
        files = [f"--{kind}=new/report.{kind}" for kind in FORMATS]
        assert main(["check", WRONG, *QUICK, *files]) == 1
        assert {path.suffix[1:] for path in (tmp_path / "new").iterdir()} == set(FORMATS)
        assert json.loads(Path("new/report.json").read_text())["exit_code"] == 1
        assert Path("summary.md").read_text() == Path("new/report.markdown").read_text()
        assert re.search(r"^::error file=", capsys.readouterr().out, re.M)

    def test_two_runs_write_the_same_but_for_times(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        written = []
        for _ in range(2):
            main(["check", "reference", WRONG, *QUICK, *(f"--{kind}={kind}" for kind in FORMATS)])
            texts = [Path(kind).read_text() for kind in FORMATS]
            times = r'(?<=time=")[^"]*|(?<=timestamp=")[^"]*|(?<=seconds": )[\d.]*'
            written.append([re.sub(times, "", text) for text in texts])
        assert written[0] == written[1]

    @pytest.mark.parametrize(("on", "option"), [("true", "--no-github"), ("", "--github")])
    def test_an_option_outdoes_the_environment(
        self,
        on: str,
        option: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("GITHUB_ACTIONS", on)
        monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
        main(["check", WRONG, *QUICK, option])
        assert ("::error " in capsys.readouterr().out) == (option == "--github")

    def test_a_folder_is_refused_before_anything_runs(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert main(["check", WRONG, "--html", "."]) == 2
        assert "Cannot write --html .: it is a folder" in capsys.readouterr().err

    def test_a_file_is_whole_or_what_it_was(
        self, wrong_run: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "report.json"
        path.write_text("before")
        monkeypatch.setitem(FORMATS, "json", lambda run: str(1 / 0))
        with pytest.raises(ZeroDivisionError):
            outputs.write(wrong_run, {"--json": path})
        assert path.read_text() == "before"


def test_the_terminal_takes_no_word_between_colons_for_a_picture(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain_console().print("process:cat: could not run")
    assert capsys.readouterr().out == "process:cat: could not run\n"
