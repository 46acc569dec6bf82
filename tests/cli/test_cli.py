"""The command line: exit codes, one-line messages, the JSON report, the lists."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from moe_routing.conformance import select_clauses
from moe_routing.conformance.cli import main
from moe_routing.implementations import registered, registry

DATA = Path(__file__).parents[1] / "data"
ROUTER = f"{DATA}/wrong_adapters.py:Router"
WRONG = f"{DATA}/wrong_adapters.py:BiasedWeights"
QUICK = ("--clause=weights.unbiased", "--max-examples=3")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*argv: str) -> int:
    """The exit code, whether argparse raises it or the command returns it."""
    try:
        return main([*argv])
    except SystemExit as usage:
        return int(usage.code or 0)


def report(*argv: str) -> dict[str, Any]:
    run("check", *argv, "--json", "report.json")
    return json.loads(Path("report.json").read_text())


ADAPTER_FILE = """
from moe_routing.implementations import BackendMissing, Capabilities
from moe_routing.reference import RouterConfig, route

class Good:
    name = "good"
    def capabilities(self): return Capabilities()
    def route(self, config, inputs): return route(RouterConfig(**vars(config)), inputs)

good = Good()
number = 3
def make(): return Good()
def broken(): raise RuntimeError("no gate\\nno experts")
def needy(device): return Good()
class Nameless:
    def capabilities(self): return Capabilities()
class NumberName(Good): name = 7
class TwoLines(Good): name = "two\\nlines"
class CapabilitiesRaise(Good):
    def capabilities(self): raise RuntimeError("not\\nyet")
class CapabilitiesNone(Good):
    def capabilities(self): return None
class CapabilitiesGiven(Good): capabilities = Capabilities()
"""


@pytest.fixture
def mine() -> None:
    """A file with adapters, and with things that are none."""
    Path("mine.py").write_text(ADAPTER_FILE)


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("adapters", "code"),
    [
        (["reference"], 0),
        ([ROUTER], 0),
        (["moe_routing.implementations.reference:ReferenceAdapter"], 0),
        (["mine.py:good"], 0),
        (["mine.py:Good"], 0),
        (["mine.py:make"], 0),
        ([WRONG], 1),
        (["reference", WRONG], 1),
        ([WRONG, "reference"], 1),
    ],
)
def test_a_check_exits_0_where_all_passes_and_1_where_any_fails(
    adapters: list[str], code: int
) -> None:
    assert run("check", *adapters, *QUICK) == code


@pytest.mark.parametrize(("gib", "fits"), [("1e300", True), ("1e-300", False)])
def test_any_memory_above_0_is_a_limit(gib: str, fits: bool) -> None:
    """Too little of it ends the worker in a call that needs more than it has already."""
    large = ("--clause=weights.match", "--max-examples=3")
    assert (run("check", "reference", *large, f"--memory={gib}") == 0) == fits


FILES = {
    "syntax.py": "class (",
    "raises.py": "raise RuntimeError('at\\nimport')",
    "lacks.py": "import a_module_that_nobody_has",
    "exits.py": "raise SystemExit(0)",
    "notes.txt": "adapter = 1",
}
USAGE = [
    ("check referense", "Unknown adapter 'referense': did you mean reference?"),
    ("check nothing-like-it", "'nothing-like-it'. `moe-routing adapters` lists all; others are "),
    ("check absent.py:Adapter", "Cannot find the adapter file absent.py; looked from "),
    ("check syntax.py:Adapter", "Cannot import syntax.py: SyntaxError: "),
    ("check raises.py:Adapter", "Cannot import raises.py: RuntimeError: at import"),
    ("check lacks.py:Adapter", "No module named 'a_module_that_nobody_has'"),
    ("check notes.txt:adapter", "Cannot import notes.txt"),
    ("check no_such_module:Adapter", "Cannot import no_such_module: ModuleNotFoundError: "),
    ("check mine.py:god", "mine.py has no attribute 'god'; did you mean good"),
    ("check mine.py:", "Unknown adapter 'mine.py:'"),
    ("check mine.py:number", "is not an adapter: it has no name, capabilities, route"),
    ("check mine.py:Nameless", "is not an adapter: it has no name, route (type=Nameless)"),
    ("check mine.py:broken", "Cannot build mine.py:broken: RuntimeError: no gate no experts"),
    ("check mine.py:Good --device cuda", "cannot run on cuda: it has no device argument"),
    (f"check {DATA}/wrong_adapters.py:Absent", "fastmoe is not installed: python -m pip install "),
    ("check reference --clause weights.unbaised", "'weights.unbaised': did you mean weights.unb"),
    ("check reference --clause zzz", "No clause matches 'zzz'. `moe-routing clauses` lists all"),
    ("check reference --clause weights.* --clause zzz", "No clause matches 'zzz'"),
    ("check reference --known absent.toml", "Cannot read absent.toml: "),
    ("check reference --known syntax.py", "Cannot read syntax.py: "),
    ("clauses zzz", "No clause matches 'zzz'"),
    ("replay absent.json", "Cannot read the case file absent.json: "),
    ("replay syntax.py", "Cannot read the case file syntax.py: "),
    ("check exits.py:Adapter", "Cannot import exits.py: SystemExit"),
    ("check mine.py:NumberName", "to have a name (a printable str) but got 7"),
    ("check mine.py:TwoLines", r"to have a name (a printable str) but got 'two\nlines'"),
    ("check mine.py:CapabilitiesRaise", "RuntimeError: not yet"),
    ("check mine.py:CapabilitiesNone", "capabilities"),
    ("check mine.py:CapabilitiesGiven", "capabilities"),
]


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(("command", "words"), USAGE)
def test_what_cannot_run_exits_2_with_its_fix_in_one_line(
    command: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in FILES.items():
        Path(name).write_text(text)
    assert run(*command.split()) == 2
    said = capsys.readouterr()
    assert said.err.startswith("moe-routing: "), said.err
    assert words in said.err
    assert said.err.count("\n") == 1, f"the message should be one line, not {said.err!r}"
    assert "Traceback" not in said.err + said.out


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", "the following arguments are required: COMMAND"),
        ("chekc reference", "'chekc' is none of check, compare, "),
        ("check", "name an ADAPTER, or adapters in [tool.moe-routing] of pyproject.toml"),
        ("replay", "the following arguments are required: CASE"),
        ("check reference --max-examples 0", "--max-examples: must be 1 or more, not 0"),
        ("check reference --max-examples -5", "must be 1 or more, not -5"),
        ("check reference --seed one", "argument --seed: invalid int value: 'one'"),
        ("check reference --profile weekly", "argument --profile: 'weekly' is none of smoke, ci, "),
        ("check reference --profile nigthly", "soak: did you mean nightly? moe-routing check -"),
        ("check reference --clauze x", "--clauze x: did you mean --clause? moe-routing check --h"),
        ("diff --jsom=x a b", "unrecognized arguments: --jsom=x; moe-routing diff --help"),
        ("check reference --max-examples few", "argument --max-examples: "),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_wrong_in_one_line(
    command: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("moe-routing: ")
    assert words in line
    assert line.endswith("--help lists what there is")
    assert "_positive" not in line, "the name of a function is no help"


@pytest.mark.usefixtures("mine")
def test_a_load_failure_is_reported_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "mine.py:broken") == 2
    said = capsys.readouterr()
    assert said.out.splitlines()[1:] == ["mine.py:broken: could not run"]
    assert said.err == (
        "moe-routing: Cannot build mine.py:broken: RuntimeError: no gate no experts (mine.py:13)\n"
    )


@pytest.mark.parametrize("name", ["torch", "vllm:fused_topk"])
def test_without_a_gpu_one_line_says_so(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    quick = ("--clause=selection.in-range", "--max-examples=3", "--no-isolate")
    assert run("check", name, "--device=cuda", *quick) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"moe-routing: --device cuda needs a GPU that torch {torch.__version__} can use, and there "
        "is none: leave out --device, or install a torch that has your GPU"
    )


@pytest.mark.usefixtures("mine")
def test_of_several_adapters_it_is_reported_which_could_not_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    absent = f"{DATA}/wrong_adapters.py:Absent"
    assert run("check", "reference", absent, *QUICK) == 2
    assert "moe-routing: absent: fastmoe is not installed" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["torch", "scattermoe", "sonicmoe"])
def test_a_shipped_adapter_takes_a_device(name: str) -> None:
    from moe_routing.implementations import load_adapter

    assert load_adapter(name, device="cuda").name == name


class TestLists:
    def test_adapters_lists_every_registered_one(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("adapters") == 0
        out = capsys.readouterr().out
        for name, where in registered().items():
            assert re.search(rf"^ *{name} .*{re.escape(where)}", out, re.M), name

    def test_a_broken_entry_point_is_reported_as_it_is(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        point = EntryPoint(name="mine", value="no_such[/gate]:Gate", group="moe_routing.adapters")
        monkeypatch.setattr(registry, "entry_points", lambda group: [point])
        assert run("adapters", "mine") == 0
        assert re.search(r"mine +broken +Cannot import no_such\[/gate\]: ", capsys.readouterr().out)

    def test_clauses_lists_every_clause_with_its_events(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("clauses") == 0
        out = capsys.readouterr().out
        for clause in select_clauses([]):
            assert f"{clause.id} ({clause.level})  {clause.statement}\n" in out, clause.id
            for event in clause.witnesses(bulk=True, huge=True):
                assert f"  sees {f'{event.family}:* (' if event.family else event.slug}" in out

    def test_clauses_takes_globs(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("clauses", "weights.s[cu]*", "logits.match") == 0
        out = capsys.readouterr().out
        ids = re.findall(r"^([\w.-]+) \((?:MUST|SHOULD)\)", out, re.M)
        assert ids == ["logits.match", "weights.sum", "weights.scale"]


class TestReplay:
    @pytest.fixture
    def case(self) -> str:
        return report(WRONG, *QUICK)["adapters"][0]["clauses"][0]["case"]

    def test_takes_several_adapters(self, case: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("replay", case, "reference", WRONG) == 1
        out = capsys.readouterr().out
        assert re.search(r"^pass  reference weights\.unbiased$", out, re.M)
        assert re.search(r"^fail  biased-weights weights\.unbiased: weights\[0, 0\]", out, re.M)

    def test_takes_another_clause(self, case: str) -> None:
        assert run("replay", case, WRONG, "--clause=selection.valid-top-k") == 0
        assert run("replay", case, WRONG, "--clause=weights.match") == 1
        assert run("replay", case, WRONG, "--clause=zzz") == 2

    def test_takes_options_anywhere(self, case: str) -> None:
        assert run("replay", case, "--clause=weights.match", WRONG) == 1

    @pytest.mark.parametrize("name", [path.stem for path in sorted(DATA.glob("cases/*.json"))])
    def test_of_a_right_router_passes(self, name: str) -> None:
        unclaimed = name == "nonsense-empty"  # whose score no router has
        assert run("replay", f"{DATA}/cases/{name}.json") == unclaimed

    @pytest.mark.parametrize(
        ("name", "clause"),
        [("shared-gated", "weights.match"), ("hash-routing", "layout.flat-token-order")],
    )
    def test_of_a_clause_that_the_case_is_not_about_says_so(
        self, name: str, clause: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        code = run("replay", f"{DATA}/cases/{name}.json", f"--clause={clause}")
        said = capsys.readouterr()
        assert code in (1, 2), said
        assert clause in said.out + said.err


PROBE = """
import sys
from moe_routing.conformance.cli import main
try:
    main(sys.argv[1:])
except SystemExit as done:
    assert done.code == 0, done.code
heavy = {"numpy", "torch", "triton", "hypothesis", "pytest", "rich"} & set(sys.modules)
print("HEAVY", *sorted(heavy))
"""


@pytest.mark.parametrize("argv", [["--help"], ["check", "--help"], ["replay", "--help"]])
def test_help_imports_nothing_heavy(argv: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *argv], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY", "help should answer at once"
    assert "usage: moe-routing" in done.stdout


def test_a_check_of_numpy_adapters_does_not_import_torch() -> None:
    program = (
        "import sys\nfrom moe_routing.conformance.cli import main\n"
        "code = main(sys.argv[1:])\nsys.exit(code or 3 * ('torch' in sys.modules))"
    )
    argv = ["check", "reference", *QUICK]
    done = subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, text=True)
    assert done.returncode == 0, f"exit {done.returncode} (3: torch was imported) {done.stderr}"


@pytest.mark.parametrize("command", ["explain", "clauses"])
def test_a_reader_that_goes_away_gets_no_words(command: str) -> None:
    case = [str(DATA / "cases" / "grouped-sigmoid.json")] if command == "explain" else []
    reader, writer = os.pipe()
    os.close(reader)
    argv = [sys.executable, "-m", "moe_routing.conformance.cli", command, *case]
    with os.fdopen(writer) as closed:
        done = subprocess.run(argv, stdout=closed, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
