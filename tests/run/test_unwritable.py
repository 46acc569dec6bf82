"""What cannot be written is reported, and costs neither the verdict nor what can be written."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from moe_routing.conformance.cases.files import load_case
from moe_routing.conformance.cases.whole import write_whole
from moe_routing.conformance.cli import main
from moe_routing.conformance.report.files import FORMATS

pytestmark = pytest.mark.usefixtures("without_hints")

DATA = Path(__file__).parents[1] / "data"
WRONG = f"{DATA}/wrong_adapters.py:BiasedWeights"
SOME = ("--clause=weights.s*", "--clause=weights.un*", "--clause=weights.dtype")
CHECK = ("check", WRONG, *SOME, "--max-examples=2", "--no-isolate")
FULL = "No space left on device"

RECORD = "last-failed.json"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def fill_disk(monkeypatch: pytest.MonkeyPatch, *beginnings: str) -> None:
    """Let the disk be full, after some bytes, under every path that begins with one of these."""
    whole = Path.write_text
    full = tuple(str(Path(each).absolute()) for each in beginnings)

    def write_text(path: Path, text: str, *args: Any, **options: Any) -> int:
        if str(path.absolute()).startswith(full):
            whole(path, text[: len(text) // 2], *args, **options)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole(path, text, *args, **options)

    monkeypatch.setattr(Path, "write_text", write_text)


def clauses(path: str = "report.json") -> list[dict[str, Any]]:
    return json.loads(Path(path).read_text())["adapters"][0]["clauses"]


class TestACaseThatCannotBeWritten:
    """A full disk, and a file where the adapter's folder of cases should be."""

    @pytest.fixture(params=["full", "in the way"])
    def reason(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
        if request.param == "full":
            fill_disk(monkeypatch, "moe-routing-cases")
            return FULL
        Path("moe-routing-cases").mkdir()
        Path("moe-routing-cases/biased-weights").touch()
        return "File exists"

    def test_costs_no_verdict_and_is_reported_in_its_story(
        self, reason: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([*CHECK, *(f"--{kind}=report.{kind}" for kind in FORMATS)]) == 1
        said = capsys.readouterr()
        path = f"moe-routing-cases/{RECORD}"
        unsaid = f"moe-routing: Cannot write {path}: {FULL}: --lf will not know of this run"
        assert said.err.splitlines() == ([unsaid] if reason == FULL else [])
        red = [each for each in clauses() if each["status"] == "fail"]
        assert len(red) == 3
        for each in red:
            path = f"moe-routing-cases/biased-weights/{each['id']}.json"
            words = f"the case could not be written to {path}: {reason}"
            assert (each["case"], each["unwritten"]) == (None, [words])
            assert f"  {words}\n  Reproduce with: moe-routing check " in said.out
            for kind in ("junit", "markdown", "html"):
                assert words in Path(f"report.{kind}").read_text(), kind
        assert not any(each["unwritten"] for each in clauses() if each["status"] == "pass")

    @pytest.mark.usefixtures("reason")
    def test_leaves_nothing_behind(self) -> None:
        main([*CHECK])
        left = [path for path in Path("moe-routing-cases").rglob("*") if path.is_file()]
        assert {path.name for path in left} in (set(), {"biased-weights", RECORD})


def test_an_example_that_cannot_be_kept_costs_no_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_disk(monkeypatch, "kept")
    assert main([*CHECK, "--examples=kept", "--json=report.json"]) == 1
    for each in clauses():
        if each["status"] == "fail":
            (words,) = each["unwritten"]
            assert words.startswith(f"the case could not be kept in kept/{each['id']}/")
            assert words.endswith(f".json: {FULL}")
            assert Path(each["case"]).is_file(), "what can be written is written"
            assert words in capsys.readouterr().out
            break
    assert not [path for path in Path("kept").rglob("*") if path.is_file()], (
        "half a case would end the next run"
    )


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_of_cases_that_is_read_only_costs_no_verdict() -> None:
    Path("moe-routing-cases").mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    assert main([*CHECK, "--json=report.json"]) == 1
    assert "Permission denied" in clauses()[0]["unwritten"][0]


def test_a_pytest_item_keeps_its_story(tmp_path: Path) -> None:
    Path("cases").mkdir()
    Path("cases/biased-weights").touch()
    Path("test_mine.py").write_text(
        "from moe_routing.conformance import conformance_tests\n"
        f"test_it = conformance_tests({WRONG!r}, clauses=['weights.unbiased'], cases='cases')\n"
    )
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"]
    run = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert run.returncode == 1
    path = "cases/biased-weights/weights.unbiased.json"
    assert f"the case could not be written to {path}: File exists" in run.stdout
    assert "weights[0, 0]=2, but should be in" in run.stdout
    assert "Reproduce with: python -m pytest" in run.stdout


class TestAReportThatCannotBeWritten:
    @pytest.mark.parametrize("kind", FORMATS)
    def test_is_named_with_the_reason_and_the_others_are_written(
        self, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path(f"report.{kind}").write_text("before")
        fill_disk(monkeypatch, f"report.{kind}")
        assert main([*CHECK, *(f"--{each}=report.{each}" for each in FORMATS)]) == 2
        said = capsys.readouterr()
        assert said.err == f"moe-routing: Cannot write --{kind} report.{kind}: {FULL}\n"
        assert "biased-weights: 1 passed, 3 failed" in said.out
        assert Path(f"report.{kind}").read_text() == "before"
        for each in set(FORMATS) - {kind}:
            text = Path(f"report.{each}").read_text()
            assert ("weights.unbiased" in text) or ("3 broken" in text and each == "badge"), each
        assert not [*Path().rglob("*.unfinished")]

    def test_so_is_a_job_summary(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", "absent/summary.md")
        assert main([*CHECK, "--github"]) == 2
        said = capsys.readouterr()
        words = "Cannot write the job summary absent/summary.md: No such file or directory"
        assert said.err == f"moe-routing: {words}\n"
        assert "\n::error file=" in said.out

    @pytest.mark.parametrize("option", ["--json", "--markdown"])
    def test_so_is_one_of_the_zoo(
        self, option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fill_disk(monkeypatch, "page")
        zoo = ["zoo", "scale-twice", "--clause=weights.scale", "--max-examples=1", "--jobs=1"]
        other = {"--json": "--markdown", "--markdown": "--json"}[option]
        assert main([*zoo, f"{option}=page", f"{other}=other"]) == 2
        assert capsys.readouterr().err == f"moe-routing: Cannot write {option} page: {FULL}\n"
        assert Path("other").is_file()

    def test_so_is_the_table_of_adapters(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fill_disk(monkeypatch, "page")
        assert main(["adapters", "reference", "--markdown=page"]) == 2
        assert capsys.readouterr().err == f"moe-routing: Cannot write --markdown page: {FULL}\n"

    def test_a_list_of_known_divergences_stays_as_it_was(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        main([*CHECK])
        Path("list.toml").write_text("# mine\n")
        fill_disk(monkeypatch, "list.toml")
        case = "moe-routing-cases/biased-weights/weights.unbiased.json"
        why = ["--id=it", "--reason=it is", "--link=https://example.org"]
        capsys.readouterr()
        assert main(["known", "add", case, WRONG, "--known=list.toml", "--no-isolate", *why]) == 2
        assert capsys.readouterr().err == f"moe-routing: list.toml: {FULL}\n"
        assert Path("list.toml").read_text() == "# mine\n"
        assert not Path("it.json").exists()


class TestWhole:
    def test_a_link_stays_a_link(self) -> None:
        Path("real").mkdir()
        Path("report.json").symlink_to("real/report.json")
        for text in ("new", "again"):
            write_whole(Path("report.json"), text)
            assert Path("report.json").is_symlink()
            assert Path("real/report.json").read_text() == text

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
    def test_a_pipe_is_written_to_and_stays_one(self) -> None:
        os.mkfifo("pipe")
        reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
        write_whole(Path("pipe"), "text")
        assert os.read(reader, 9) == b"text"
        os.close(reader)
        assert stat.S_ISFIFO(os.stat("pipe").st_mode)

    def test_devices_stay_devices(self) -> None:
        write_whole(Path(os.devnull), "text")
        assert not Path(os.devnull).is_file()

    def test_text_is_utf_8(self) -> None:
        write_whole(Path("page"), "✓")
        assert Path("page").read_bytes() == b"\xe2\x9c\x93"

    def test_what_went_wrong_names_the_path(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fill_disk(monkeypatch, "new")
        with pytest.raises(OSError, match=FULL) as raised:
            write_whole(Path("new/file"), "text")
        assert raised.value.filename == "new/file"
        assert not [*Path("new").iterdir()]

    def test_a_case_file_is_read_as_utf_8(self) -> None:
        text = (DATA / "cases" / "grouped-sigmoid.json").read_text(encoding="utf-8")
        Path("case.json").write_bytes(text.replace('"recipe": "', '"recipe": "é').encode())
        assert load_case(Path("case.json"))[0].recipe.startswith("é")
