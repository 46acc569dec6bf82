"""Output when readers leave, encodings lack signs, or disks are full: nothing else is lost."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from screens import command, ended, forked, surroundings

from moe_routing.conformance.checking.status import STATUSES
from moe_routing.conformance.cli import main
from moe_routing.conformance.cli.streams import Lossless
from moe_routing.conformance.report.files import FORMATS

DATA = Path(__file__).parents[1] / "data"
WRONG = f"{DATA}/wrong_adapters.py:BiasedWeights"
CASE = f"{DATA}/cases/grouped-sigmoid.json"
QUICK = ("--clause=weights.unbiased", "--max-examples=2", "--no-isolate")
FILES = tuple(f"--{kind}=report.{kind}" for kind in FORMATS)

EVERY = {
    "check": ("check", "reference", WRONG, *QUICK),
    "replay": ("replay", CASE, "--no-isolate"),
    "explain": ("explain", CASE),
    "diff": ("diff", "base.json", "base.json"),
    "clauses": ("clauses",),
    "adapters": ("adapters",),
    "zoo": ("zoo", "scale-twice", "--clause=weights.scale", "--max-examples=1", "--jobs=1"),
    "known": ("known", "prune", "reference", "--known=list.toml", "--no-isolate"),
    "new-adapter": ("new-adapter", "my-router", "--directory=new"),
    "help": ("check", "--help"),
}
"""Every command that prints, and with which exit code it ends: 0, but for ``check``'s 1."""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    adapter = {"name": "a", "wraps": {"package": None, "version": None}, "clauses": []}
    run = {"schema": 1, "suite_version": "1", "environment": {"packages": {}}, "profile": "ci"}
    base = {**run, "seed": 0, "max_examples": 9, "adapters": [adapter]}
    Path("base.json").write_text(json.dumps(base))
    Path("list.toml").touch()


def ran(*argv: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    environment = surroundings(**environment)
    return subprocess.run(command(*argv), capture_output=True, env=environment, timeout=120)


def unread(*argv: str, both: bool = False) -> tuple[int, bytes]:
    """Run a command whose reader has gone; return its exit code, and what it says on stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer) as closed:
        stderr = closed if both else subprocess.PIPE
        argv_, environment = command(*argv), surroundings()
        run = subprocess.run(argv_, stdout=closed, stderr=stderr, env=environment, timeout=120)
    return run.returncode, run.stderr or b""


class TestAReaderThatGoesAway:
    @pytest.mark.parametrize("name", EVERY)
    def test_changes_no_exit_code_and_gets_no_words(self, name: str) -> None:
        assert unread(*EVERY[name]) == (int(name == "check"), b"")

    @pytest.mark.parametrize("both", [False, True])
    def test_costs_no_report_and_no_case(self, both: bool) -> None:
        assert unread(*EVERY["check"], *FILES, both=both) == (1, b"")
        for kind in FORMATS:
            assert Path(f"report.{kind}").is_file(), kind
        found = json.loads(Path("report.json").read_text())
        statuses = [each["clauses"][0]["status"] for each in found["adapters"]]
        assert statuses == ["pass", "fail"]
        assert Path(found["adapters"][1]["clauses"][0]["case"]).is_file()

    def test_costs_no_page_of_the_zoo(self) -> None:
        assert unread(*EVERY["zoo"], "--json=zoo.json", "--markdown=zoo.md") == (0, b"")
        assert {"zoo.json", "zoo.md"} <= {path.name for path in Path().iterdir()}

    @pytest.mark.skipif(sys.platform == "win32", reason="there is no such shell")
    @pytest.mark.parametrize("redirection", [">&-", ">&- 2>&-"])
    def test_may_never_have_been_there(self, redirection: str) -> None:
        line = f'"$@" {redirection}'
        argv = ["bash", "-c", line, "bash", *command(*EVERY["check"], *FILES)]
        run = subprocess.run(argv, capture_output=True, env=surroundings(), timeout=120)
        assert (run.returncode, run.stderr) == (1, b"")
        assert Path("report.json").is_file()


class TestAnEncodingThatLacksSigns:
    @pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp932"])
    @pytest.mark.parametrize("name", EVERY)
    def test_takes_what_every_command_prints(self, name: str, encoding: str) -> None:
        environment = surroundings(PYTHONIOENCODING=encoding, COLUMNS="80")
        with open("out", "w+b") as out, open("err", "w+b") as err, open(os.devnull) as nothing:
            streams = (each.fileno() for each in (nothing, out, err))
            code = ended(forked(EVERY[name], *streams, environment))
            assert code == int(name == "check"), err.read()
            assert not Path("err").read_bytes()
            assert Path("out").read_bytes().decode(encoding)

    @pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp932"])
    def test_costs_no_report(self, encoding: str) -> None:
        run = ran(*EVERY["check"], *FILES, PYTHONIOENCODING=encoding)
        assert (run.returncode, run.stderr) == (1, b"")
        assert re.search(rb"weights\.unbiased +\+ pass +x fail", run.stdout), run.stdout
        assert "✗ fail" in Path("report.markdown").read_text(encoding="utf-8")

    @pytest.mark.parametrize("name", ["check", "zoo", "adapters", "replay", "new-adapter"])
    def test_and_a_system_without_unicode_change_no_file(self, name: str) -> None:
        """The files are UTF-8 wherever they are written, as what reads them expects."""
        more = {"check": FILES, "zoo": ("--json=z.json", "--markdown=page.md")}
        more |= {"adapters": ("--markdown=page.md",)}
        system = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        run = ran(*EVERY[name], *more.get(name, ()), **system)
        assert (run.returncode, run.stderr) == (int(name == "check"), b"")
        written = [path for path in Path().rglob("*") if path.is_file()]
        assert all(path.read_text(encoding="utf-8") is not None for path in written)
        if name == "check":
            assert "✗ fail" in Path("report.markdown").read_text(encoding="utf-8")

    def test_every_glyph_has_a_sign_in_ascii(self) -> None:
        shown = {row.glyph: written("ascii", row.glyph) for row in STATUSES.values()}
        assert shown == {"✓": "+", "✗": "x", "≈": "~", "↑": "^", "!": "!", "-": "-", "?": "?"}

    @pytest.mark.parametrize(
        ("encoding", "text", "shown"),
        [
            ("ascii", "cut… a·b ━━╸", "cut... a.b ---"),
            ("ascii", "你 é\ud800", "\\u4f60 \\xe9\\ud800"),
            ("cp1252", "é… ✓", "é… +"),
            ("utf-8", "✓ 你", "✓ 你"),
            ("utf-8", "\ud800✓", "\\ud800✓"),
        ],
    )
    def test_is_given_what_it_lacks_in_other_words(
        self, encoding: str, text: str, shown: str
    ) -> None:
        assert written(encoding, text) == shown

    def test_with_a_way_of_its_own_is_given_the_text(self) -> None:
        """``PYTHONIOENCODING=ascii:replace`` is respected."""
        assert written("ascii", "é", errors="replace") == "?"


def written(encoding: str, text: str, errors: str = "strict") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors)
    output = Lossless(stream)
    output.write(text)
    output.flush()
    return stream.buffer.getvalue().decode(encoding)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device")
class TestAFullDisk:
    def test_costs_no_report(self) -> None:
        with open("/dev/full", "w") as full:
            argv, environment = command(*EVERY["check"], *FILES), surroundings()
            run = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, env=environment)
        words = b"moe-routing: Cannot write to the standard output: No space left on device\n"
        assert (run.returncode, run.stderr) == (2, words)
        assert json.loads(Path("report.json").read_text())["exit_code"] == 1

    def test_is_reported_once_where_it_lies_under_stderr(self) -> None:
        with open("/dev/full", "w") as full:
            argv, environment = command(*EVERY["check"], *FILES), surroundings()
            run = subprocess.run(argv, stdout=full, stderr=full, env=environment)
        assert run.returncode == 2
        assert Path("report.json").is_file()


def test_the_streams_are_the_callers_again_once_the_command_is_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sys.stdout, sys.stderr
    assert main(["clauses", "weights.sum"]) == 0
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out.startswith("weights.sum (MUST)")
