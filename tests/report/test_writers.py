"""The writers of text: nothing is lost, nothing a backend says is taken for a command."""

from __future__ import annotations

import io
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from moe_routing.conformance.checking.results import RunResult
from moe_routing.conformance.cli import main, outputs
from moe_routing.conformance.report.files import FORMATS
from moe_routing.conformance.report.github import MOST, annotations, write_summary
from moe_routing.conformance.report.markdown import LARGEST, fenced, markdown
from moe_routing.conformance.report.terminal import Terminal, plain_console
from moe_routing.conformance.report.text import (
    broken,
    counts,
    printable,
    reproduce,
    story_lines,
    verdict,
)

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


class TestMarkdown:
    def test_has_a_row_for_each_clause_that_differs(self, wrong_run: RunResult) -> None:
        text = markdown(wrong_run)
        shown = set(re.findall(r"^\| `([\w.-]+)` \|", text, re.M))
        differing = {
            each.id for a in wrong_run.adapters for each in a.clauses if each.status != "pass"
        }
        everywhere = {
            each.id
            for each in wrong_run.adapters[0].clauses
            if all(
                e.status == "unsupported"
                for a in wrong_run.adapters
                for e in a.clauses
                if e.id == each.id
            )
        }
        assert shown == differing - everywhere
        assert "clauses: pass everywhere." in text

    def test_has_a_story_for_each_broken_clause(self, wrong_run: RunResult) -> None:
        text = markdown(wrong_run)
        red = sum(len(broken(adapter)) for adapter in wrong_run.adapters)
        assert text.count("<details><summary>") == red
        assert text.count("Reproduce with: ") == red

    def test_escapes_what_is_not_ours(self, every_status: RunResult, hostile: str) -> None:
        text = markdown(every_status)
        outside = re.sub(r"^(`{3,})\n.*?^\1$", "", text, flags=re.M | re.S)
        assert "<script>" not in outside.replace("\\<script", "")
        assert "\x1b" not in text
        rows = [line for line in text.splitlines() if line.startswith("|")]
        widths = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
        assert widths == {3}, "a bar in a name should not end its cell"

    def test_escapes_why_an_adapter_could_not_be_loaded(
        self, every_status: RunResult, hostile: str
    ) -> None:
        (adapter,) = every_status.adapters
        unloaded = replace(adapter, unloaded=f"{hostile}\ud800", clauses=())
        text = markdown(replace(every_status, adapters=(unloaded,)))
        assert "could not run: " in text
        assert "<script>" not in text.replace("\\<script", "")
        assert not {"\x1b", "\ud800"} & {*text}, "it should be fit to be written"

    def test_a_fence_is_longer_than_what_it_holds(self) -> None:
        assert fenced(["a ``` b", "`````"]) == ["``````", "a ``` b", "`````", "``````"]

    def test_leaves_stories_out_before_github_leaves_all_of_it_out(
        self, wrong_run: RunResult
    ) -> None:
        from dataclasses import replace

        many = replace(wrong_run, adapters=wrong_run.adapters * 200)
        text = markdown(many)
        assert "more stories are left out." in text
        assert len(text.encode()) < LARGEST


class TestGithub:
    def test_an_annotation_is_one_command_in_one_line(
        self, every_status: RunResult, hostile: str
    ) -> None:
        lines = annotations(every_status)
        red = [each for each in every_status.adapters[0].clauses if not each.green]
        assert len(lines) == len(red)
        for line in lines:
            found = re.fullmatch(r"::error file=([^,:\n]*),title=([^,:\n]*)::([^\n\r]*)", line)
            assert found, f"{line!r} is not one command"
            assert "Reproduce with" in found[3]
            assert "%25" in found[1], "a percent sign should be escaped, and first"

    def test_names_a_file_only_where_the_adapter_has_one(self, wrong_run: RunResult) -> None:
        lines = annotations(wrong_run)
        assert all(f"file={WRONG.rpartition(':')[0]}," in line for line in lines[:-1])

    def test_reports_how_many_github_would_drop(self, wrong_run: RunResult) -> None:
        red = sum(len(broken(adapter)) for adapter in wrong_run.adapters)
        assert red > MOST, "this test needs more failures than GitHub shows"
        lines = annotations(wrong_run)
        assert len(lines) == MOST
        assert lines[-1] == (
            f"::error title=moe-routing::{red - MOST + 1} more broken clauses; see the job summary"
        )

    def test_the_summary_is_appended_where_the_environment_says_when_it_is_written(
        self, wrong_run: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        summary = tmp_path / "summary.md"
        summary.write_text("before\n")
        monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
        write_summary(wrong_run)
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
        write_summary(wrong_run)
        assert summary.read_text() == "before\n" + markdown(wrong_run)


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
            times = r'(?<=time=")[^"]*|(?<=timestamp=")[^"]*|(?<="seconds": )[\d.]*'
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
