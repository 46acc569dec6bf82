"""Two things that a run would write to one file, or to one that it reads, are refused first."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from begun import ADAPTERS, CHECK, ZOO, Begun
from screens import command

from moe_routing.conformance.cli import main


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(_a_file_and_a_folder: None) -> None:
    """Come before the fixtures that write there."""


ADAPTER = """
from moe_routing.implementations import Capabilities
from moe_routing.reference import route
class Mine:
    name = "mine"
    def capabilities(self): return Capabilities()
    def route(self, config, inputs): return route(config, inputs)
"""


@pytest.mark.usefixtures("_nothing_runs")
class TestOneFileForTwo:
    """No file is written twice, and none that is read is written over."""

    def refused(self, capsys: pytest.CaptureFixture[str], *argv: str) -> str:
        before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
        assert main([*argv]) == 2
        said = capsys.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1)
        assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
        return said.err.removeprefix("moe-routing: ").removesuffix("\n")

    @pytest.mark.parametrize(
        ("command", "options"),
        [
            *((CHECK, pair) for pair in [("--json", "--html"), ("--junit", "--markdown")]),
            (ZOO, ("--json", "--markdown")),
        ],
    )
    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ("out", "out"),
            ("out", "./out"),
            ("out", "folder/../out"),
            ("file", "link"),
            ("folder/out", "linked/out"),
            ("dangling", "new"),
            ("file", "hard"),
        ],
    )
    def test_two_outputs(
        self,
        command: tuple[str, ...],
        options: tuple[str, str],
        first: str,
        second: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        Path("link").symlink_to("file")
        Path("linked").symlink_to("folder")
        Path("dangling").symlink_to("new")
        Path("hard").hardlink_to("file")
        words = self.refused(capsys, *command, options[0], first, options[1], second)
        named = f"{options[0]} {first} and {options[1]} {Path(second)}"
        assert words == f"{named} are one file: give each a file of its own"

    def test_the_spelling_is_that_of_the_disk(self, capsys: pytest.CaptureFixture[str]) -> None:
        absolute = str(Path("out").absolute())
        words = self.refused(capsys, *CHECK, "--json", "out", "--html", absolute)
        assert words.startswith(f"--json out and --html {absolute} are one file")

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (
                ("--json=out", "--html=out/page"),
                "--json out is a file, where --html out/page needs ",
            ),
            (
                ("--json=out/page", "--html=out"),
                "--html out is a file, where --json out/page needs ",
            ),
            (("--json=out", "--cases=out"), "--json out is a file, where --cases out needs "),
            (
                ("--json=out", "--cases=out/new"),
                "--json out is a file, where --cases out/new needs ",
            ),
            (
                ("--json=out", "--examples=./out"),
                "--json out is a file, where --examples out needs ",
            ),
        ],
    )
    def test_a_file_and_a_folder(
        self, options: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.refused(capsys, *CHECK, *options) == f"{words}a folder: name another file"
        assert not Path("out").exists()

    @pytest.mark.parametrize(
        ("reference", "path"),
        [
            ("mine.py:Mine", "mine.py"),
            ("mine.py:Mine", "./folder/../mine.py"),
            ("./mine.py:Mine", "link.py"),
            ("process:./mine.py --fast", "mine.py"),
            ("process:python mine.py", "mine.py"),
            ("package.mine:Mine", "package/mine.py"),
            ("package.mine:Mine", "package/__init__.py"),
            ("reference", "mine.py"),
        ],
    )
    def test_source_code(
        self,
        reference: str,
        path: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        Path("mine.py").write_text(ADAPTER)
        Path("mine.py").chmod(0o755)
        Path("link.py").symlink_to("mine.py")
        Path("package").mkdir()
        Path("package/__init__.py").touch()
        Path("package/mine.py").write_text(ADAPTER)
        monkeypatch.syspath_prepend(".")
        words = self.refused(capsys, "check", reference, "--json", path)
        assert words == f"--json {Path(path)} would overwrite source code: name another file"

    def test_the_command_of_a_backend(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("router").write_text("#!/bin/sh\n")
        Path("router").chmod(0o755)
        words = self.refused(capsys, "check", "process:./router", "--json", "router")
        refused = "--json router would overwrite router, of the adapter process:./router"
        assert words == f"{refused}: name another file"

    @pytest.fixture
    def _list(self) -> None:
        case = Path(__file__).parents[1] / "data" / "cases" / "grouped-sigmoid.json"
        Path("it.json").write_text(case.read_text())
        Path("list.toml").write_text(
            '[[divergence]]\nid = "it"\nadapters = ["mine"]\nclause = "weights.sum"\n'
            'reason = "so"\nlink = "https://example.org"\nwitness = "it.json"\n'
        )

    @pytest.mark.usefixtures("_list")
    @pytest.mark.parametrize(
        ("path", "role"),
        [("list.toml", "--known list.toml"), ("it.json", "the witness it.json of it")],
    )
    def test_known_divergences(
        self, path: str, role: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = self.refused(capsys, *CHECK, "--known=list.toml", "--markdown", path)
        refused = f"--markdown {path} would overwrite {role}, which is read"
        assert words == f"{refused}: name another file"

    @pytest.mark.parametrize("path", ["kept/weights.sum/0123.json", "kept/new/report.json"])
    def test_kept_cases(self, path: str, capsys: pytest.CaptureFixture[str]) -> None:
        words = self.refused(capsys, *CHECK, "--examples=kept", "--json", path)
        refused = f"--json {path} lies where --examples kept has its cases"
        assert words == f"{refused}: name another file"

    def test_failing_cases(self, capsys: pytest.CaptureFixture[str]) -> None:
        path = "moe-routing-cases/mine/weights.sum.json"
        words = self.refused(capsys, *CHECK, "--json", path)
        refused = f"--json {path} lies where --cases moe-routing-cases has its cases"
        assert words == f"{refused}: name another file"

    def test_a_baseline(self, capsys: pytest.CaptureFixture[str]) -> None:
        report = {"schema": 1, "suite_version": "1", "environment": {"packages": {}}, "seed": 0}
        report |= {"profile": "ci", "max_examples": 1, "adapters": []}
        Path("base.json").write_text(json.dumps(report))
        words = self.refused(capsys, *CHECK, "--baseline=base.json", "--json=./base.json")
        assert words == (
            "--json base.json would overwrite --baseline base.json, so that the next run would "
            "excuse what this one finds: name another file, and replace the baseline once you "
            "accept that report"
        )

    def test_a_report_that_is_read(self, capsys: pytest.CaptureFixture[str]) -> None:
        words = self.refused(capsys, *ADAPTERS, "--report=file", "--markdown=file")
        refused = "--markdown file would overwrite --report file, which is read"
        assert words == f"{refused}: name another file"

    def test_what_the_shell_writes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with Path("log").open("w") as log:
            argv = command(*CHECK, "--json=log")
            run = subprocess.run(argv, stdout=log, stderr=subprocess.PIPE, text=True)
        refused = "moe-routing: --json log would overwrite the standard output, which goes there"
        assert (run.returncode, run.stderr) == (2, f"{refused}: name another file\n")

    @pytest.mark.parametrize(
        "options",
        [
            ("--json=/dev/null", "--html=/dev/null"),
            ("--json=moe-routing-cases/report.json",),
            ("--json=moe-routing-cases/mine/report.json",),
            ("--json=kept/report.json", "--examples=kept"),
            ("--json=file", "--html=folder/file"),
            ("--json=new/a", "--html=new/b", "--cases=new/cases", "--examples=new/kept"),
        ],
    )
    def test_files_apart_are_taken(self, options: tuple[str, ...]) -> None:
        with pytest.raises(Begun):
            main([*CHECK, *options])
