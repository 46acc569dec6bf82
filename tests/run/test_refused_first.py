"""What a run cannot end well with is refused before it begins: where to write, what to compare."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from begun import ADAPTERS, CHECK, ZOO, Begun

from moe_routing.conformance.cli import main
from moe_routing.conformance.run import session


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(_a_file_and_a_folder: None) -> None:
    """Come before the fixtures that write there."""


@pytest.mark.usefixtures("_nothing_runs")
class TestPaths:
    @pytest.mark.parametrize(
        ("command", "option"),
        [
            *((CHECK, f"--{kind}") for kind in ("json", "junit", "markdown", "html")),
            (ZOO, "--json"),
            (ZOO, "--markdown"),
            (ADAPTERS, "--markdown"),
        ],
    )
    @pytest.mark.parametrize(
        ("path", "words"),
        [
            ("folder", "it is a folder; name a file"),
            ("file/report", "file is a file, where a folder is needed"),
            ("file/new/report", "file is a file, where a folder is needed"),
        ],
    )
    def test_a_file_needs_a_folder_to_lie_in(
        self,
        command: tuple[str, ...],
        option: str,
        path: str,
        words: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        assert main([*command, option, path]) == 2
        assert capsys.readouterr().err == f"moe-routing: Cannot write {option} {path}: {words}\n"
        assert Path("file").read_text() == "mine"

    @pytest.mark.parametrize("option", ["--cases", "--examples"])
    @pytest.mark.parametrize("path", ["file", "file/new"])
    def test_cases_need_a_folder(
        self, option: str, path: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([*CHECK, option, path]) == 2
        words = f"Cannot write {option} {path}: file is a file, where a folder is needed"
        assert capsys.readouterr().err == f"moe-routing: {words}\n"

    def test_so_do_those_of_which_no_option_says_where(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("moe-routing-cases").touch()
        assert main([*CHECK]) == 2
        words = "moe-routing: Cannot write --cases moe-routing-cases: moe-routing-cases is a file"
        assert capsys.readouterr().err.startswith(words)

    @pytest.mark.parametrize("path", ["folder", "folder/new", "new/new"])
    def test_a_folder_that_is_not_needed_is_not_made(self, path: str) -> None:
        with pytest.raises(Begun):
            main([*CHECK, "--cases", path, "--examples", path])
        assert sorted(each.name for each in Path().rglob("*")) == ["file", "folder"]


class TestBaseline:
    @pytest.fixture
    def _base(self) -> None:
        assert main([*CHECK, "--json=base.json"]) == 0

    @pytest.mark.usefixtures("_base")
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--max-examples=2"], "Cannot compare a report of max_examples=1 with one of "),
            (["--profile=smoke"], "Cannot compare a report of profile='ci' with one of "),
        ],
    )
    def test_of_another_run_is_refused(
        self,
        options: list[str],
        words: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(session, "check", None)
        assert main([*CHECK, "--baseline=base.json", *options]) == 2
        assert capsys.readouterr().err.startswith(f"moe-routing: {words}")

    @pytest.mark.usefixtures("_base")
    def test_of_an_interrupted_run_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        base = json.loads(Path("base.json").read_text())
        Path("base.json").write_text(json.dumps({**base, "partial": True}))
        monkeypatch.setattr(session, "check", None)
        assert main([*CHECK, "--baseline=base.json"]) == 2
        assert "report of an interrupted run" in capsys.readouterr().err

    @pytest.mark.usefixtures("_base")
    def test_of_a_run_like_this_one_is_compared(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([*CHECK, "--baseline=base.json"]) == 0
        assert "1 the same" in capsys.readouterr().out


@pytest.mark.usefixtures("_nothing_runs")
@pytest.mark.parametrize("command", [CHECK, ZOO], ids=["check", "zoo"])
def test_a_folder_that_cannot_be_made_or_written_to(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--json=/proc/new/report.json"]) == 2
    words = "moe-routing: Cannot write --json /proc/new/report.json: No such file or directory\n"
    assert capsys.readouterr().err == words
    monkeypatch.setattr("os.access", lambda path, mode: str(path) != "folder")
    assert main([*command, "--json=folder/report.json"]) == 2
    words = "moe-routing: Cannot write --json folder/report.json: folder is read-only\n"
    assert capsys.readouterr().err == words
