"""``moe-routing new-adapter``: what it writes is green at once, and nothing is ever in its way."""

from __future__ import annotations

import re
import shlex
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from documented import shell
from near_layers import composed
from screens import written

from moe_routing.conformance.cli import main
from moe_routing.conformance.cli.presets import table
from moe_routing.conformance.scaffold.adapter import Names, names_for
from moe_routing.implementations import Capabilities, Claim, Unsupported
from moe_routing.reference import PRESETS

ROOT = Path(__file__).parents[2]
TEMPLATES = Path(str(sys.modules["moe_routing.conformance"].__path__[0])) / "scaffold" / "templates"
WRITTEN = (
    "quick_gate.py",
    "test_quick_gate.py",
    "known/quick-gate.toml",
    ".github/workflows/quick-gate.yml",
)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def typed(line: str, folder: Path) -> tuple[int, str]:
    """Run a command in a fork of this process, which has imported torch: a new one takes 3 s."""
    _, *argv = shlex.split(line)
    with chdir(folder):
        return written([*argv, "--no-isolate"], COLUMNS="80")


def tree(folder: str = ".") -> list[str]:
    found = (path for path in Path(folder).rglob("*") if path.is_file())
    return sorted(str(path.relative_to(folder)) for path in found)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of somebody else's, with a new adapter in it."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("foreign")
    assert main(["new-adapter", "quick-gate", f"--directory={folder}"]) == 0
    return folder


class TestWhatItWrites:
    def test_is_four_files_without_a_word_of_the_template(self, repository: Path) -> None:
        assert tree(str(repository)) == sorted(WRITTEN)
        for name in WRITTEN:
            assert not re.search("my.?router", (repository / name).read_text(), re.IGNORECASE), name

    def test_passes_the_check_that_its_job_runs(self, repository: Path) -> None:
        yaml = pytest.importorskip("yaml", reason="needs pyyaml")
        workflow: dict[Any, Any] = yaml.safe_load(
            (repository / ".github/workflows/quick-gate.yml").read_text()
        )
        assert workflow["permissions"] == {"contents": "read"}
        steps = workflow["jobs"]["routing"]["steps"]
        (command,) = (step["run"] for step in steps if step.get("name") == "Check")
        done = shell(f"{command} --profile smoke", repository)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "quick-gate: 32 passed, 27 unsupported" in done.stdout
        kept = steps[-1]["with"]["path"].split()
        assert (repository / kept[0]).is_file(), "the report that the job keeps should be there"

    def test_passes_its_own_tests(self, repository: Path) -> None:
        done = shell("python -m pytest -q -p no:cacheprovider", repository)
        assert done.returncode == 0, done.stdout
        assert re.search(r"^32 passed, 27 skipped", done.stdout, re.MULTILINE), done.stdout

    def test_fails_both_ways_once_one_character_is_broken(self, repository: Path) -> None:
        file = repository / "quick_gate.py"
        right = file.read_text()
        file.write_text(right.replace("weights / weights.sum", "weights * weights.sum"))
        try:
            check = "moe-routing check quick_gate.py:QuickGateAdapter --clause 'weights.*'"
            code, _ = typed(check, repository)
            tested = shell("python -m pytest -q -p no:cacheprovider -k weights", repository)
        finally:
            file.write_text(right)
        assert (code, tested.returncode) == (1, 1)
        assert "FAILED test_quick_gate.py::test_routing[weights.match]" in tested.stdout

    def test_is_typed_as_strictly_as_it_can_be(self, repository: Path, with_experts: Path) -> None:
        pytest.importorskip("mypy")
        other = repository / "quick_experts.py"
        other.write_text((with_experts / "quick_gate.py").read_text())
        where = str(Path(sys.modules["moe_routing.conformance"].__path__[0]).parents[1])
        done = shell(
            f"python -m mypy --strict --config-file {ROOT}/pyproject.toml "
            f"--cache-dir {ROOT}/.mypy_cache "  # tox has filled it, torch's types included
            "quick_gate.py test_quick_gate.py quick_experts.py",
            repository,
            **({} if "site-packages" in where else {"MYPYPATH": where}),
        )
        other.unlink()
        assert done.returncode == 0, done.stdout + done.stderr

    def test_keeps_a_list_that_known_add_can_add_to(self, repository: Path) -> None:
        known = repository / "known/quick-gate.toml"
        before = known.read_text()
        file = repository / "raises.py"
        file.write_text(
            "from quick_gate import QuickGateAdapter\n"
            "class Raises(QuickGateAdapter):\n"
            "    def route(self, config, inputs):\n"
            "        if not inputs.num_tokens: raise RuntimeError('no tokens')\n"
            "        return super().route(config, inputs)\n"
        )
        check = "moe-routing check raises.py:Raises --profile smoke --clause robustness.empty-batch"
        assert typed(check, repository)[0] == 1
        case = "moe-routing-cases/quick-gate/robustness.empty-batch.json"
        code, said = typed(
            f"moe-routing known add {case} raises.py:Raises --known known/quick-gate.toml "
            "--id no-tokens --reason why --link here",
            repository,
        )
        assert code == 0, said
        assert known.read_text().startswith(before)
        assert typed(f"{check} --known known/quick-gate.toml", repository)[0] == 0


@pytest.fixture(scope="module")
def with_experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a new adapter of experts in it."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("experts")
    assert main(["new-adapter", "quick-gate", "--experts", f"--directory={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def with_a_layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a new adapter of a whole layer in it."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("layer")
    assert main(["new-adapter", "quick-gate", "--layer", f"--directory={folder}"]) == 0
    return folder


class TestLayer:
    def test_the_files_are_the_same_and_green_at_once(self, with_a_layer: Path) -> None:
        assert tree(str(with_a_layer)) == sorted(WRITTEN)
        check = "moe-routing check quick_gate.py:QuickGateAdapter --known known/quick-gate.toml"
        code, said = typed(check, with_a_layer)
        assert code == 0, said
        assert "quick-gate: 5 passed; 5 of 5 clauses apply" in said

    def test_a_shared_expert_twice_is_red(self, with_a_layer: Path) -> None:
        text = (with_a_layer / "quick_gate.py").read_text()
        once = "output + swiglu(hidden, *shared)"
        assert once in text
        (with_a_layer / "twice.py").write_text(text.replace(once, once.replace("+ ", "+ 2 * ")))
        check = "moe-routing check twice.py:QuickGateAdapter --clause layer.shared-once"
        code, said = typed(check, with_a_layer)
        assert code == 1
        assert "looks     as if the shared expert were added twice" in said

    def test_what_is_not_claimed_is_refused(self) -> None:
        case = composed(shared="none")
        capabilities = Capabilities(claims=(Claim.plain(score=("sigmoid",)),))
        with pytest.raises(Unsupported, match="not claimed: score='softmax'"):
            capabilities.require_layer(case.config, case.inputs)


class TestExperts:
    def test_the_files_are_the_same_and_green_at_once(self, with_experts: Path) -> None:
        assert tree(str(with_experts)) == sorted(WRITTEN)
        assert "my" not in re.findall(r"\bmy\b", (with_experts / WRITTEN[0]).read_text())
        command = "moe-routing check quick_gate.py:QuickGateAdapter --profile smoke"
        code, said = typed(f"{command} --known known/quick-gate.toml", with_experts)
        assert code == 0, said
        assert re.search(r"quick-gate: \d+ passed, \d+ unsupported", said)
        assert "none of 12 methods (route, dispatch, shared_experts, ...): " in said


def test_it_says_what_it_wrote_and_what_to_do_next(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-adapter", "quick-gate", "--directory", "a b/c"]) == 0
    assert capsys.readouterr().out == (
        "wrote a b/c/quick_gate.py\n"
        "wrote a b/c/test_quick_gate.py\n"
        "wrote a b/c/known/quick-gate.toml\n"
        "wrote a b/c/.github/workflows/quick-gate.yml\n"
        "\n"
        "Next, put your router at the mark in the adapter. Until then these are green:\n"
        "\n"
        "  cd 'a b/c'\n"
        "  moe-routing check quick_gate.py:QuickGateAdapter --known known/quick-gate.toml\n"
        "  python -m pytest test_quick_gate.py\n"
    )


class TestInTheWay:
    @pytest.mark.parametrize("there", [*WRITTEN, "quick_gate"])
    @pytest.mark.parametrize("kind", ["file", "folder", "broken link"])
    def test_what_is_there_stays_and_nothing_is_written(
        self, there: str, kind: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = Path(there)
        path.parent.mkdir(parents=True, exist_ok=True)
        match kind:
            case "file":
                path.write_text("mine")
            case "folder":
                path.mkdir()
            case "broken link":
                path.symlink_to("nowhere")
        before = sorted(Path().rglob("*"))
        assert main(["new-adapter", "quick-gate"]) == 2
        assert capsys.readouterr().err == (
            f"moe-routing: {there} already exists, and nothing was written: "
            "move it, or choose another name or --directory\n"
        )
        assert sorted(Path().rglob("*")) == before
        assert kind != "file" or path.read_text() == "mine"

    @pytest.mark.parametrize("place", ["known", ".github", "top/inner"])
    def test_a_file_where_a_folder_is_due_leaves_nothing_half_written(
        self, place: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = Path("top/inner") if place == "top/inner" else Path()
        Path(place).parent.mkdir(exist_ok=True)
        Path(place).write_text("mine")
        assert main(["new-adapter", "quick-gate", f"--directory={folder}"]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1, err
        assert place in err
        assert tree() == [place], "what was written before should be gone again"
        assert not [path for path in Path().iterdir() if path.name not in (place, "top")]


BAD = {
    "": "Cannot name an adapter ''",
    "My-Router": "lower-case letters and digits with - or _ between, such as my-router",
    "2fast": "Cannot name an adapter '2fast'",
    "a/b": "Cannot name an adapter 'a/b'",
    "../up": "Cannot name an adapter '../up'",
    "a--b": "Cannot name an adapter 'a--b'",
    "rüter": "Cannot name an adapter 'rüter'",
    "two words": "Cannot name an adapter 'two words'",
    "line\n": "Cannot name an adapter 'line",
    "class": "class is a Python keyword",
    "torch": "`moe-routing check torch` already means another one; use my-torch, for example",
    "reference": "`moe-routing check reference` already means another one; use my-reference, for",
    "megatron-core": "`moe-routing check megatron-core` already means another one",
    "deepspeed": "`moe-routing check deepspeed` already means another one",
    "sonic-moe": "`moe-routing check sonic-moe` already means another one",
    "process": "`moe-routing check process` already means another one",
    "json": "json.py would hide the module json, which is installed; use json-router, for example",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_name_is_refused_in_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-adapter", name]) == 2
    err = capsys.readouterr().err
    assert BAD[name] in err
    assert err.count("\n") == 1, err
    assert tree() == []


@pytest.mark.parametrize(
    ("name", "module", "adapter"),
    [
        ("my-router", "my_router", "MyRouterAdapter"),
        ("v3_gate-2", "v3_gate_2", "V3Gate2Adapter"),
        ("routing", "routing", "RoutingAdapter"),
        ("my-adapter", "my_adapter", "MyAdapter"),
    ],
)
def test_names_follow_from_the_name(name: str, module: str, adapter: str) -> None:
    assert names_for(name) == Names(name=name, module=module, adapter=adapter)


def test_the_template_marks_the_router_to_replace_and_its_adapter_is_a_dozen_lines() -> None:
    text = (TEMPLATES / "my_router.py").read_text()
    marked = text.partition("# ---- Your router: ")[2].partition("# ---- Your router ends here.")[0]
    assert "def softmax_topk(" in marked
    adapter = text.partition("class MyRouterAdapter:")[2]
    code = [x for x in adapter.splitlines() if x.strip() and not x.strip().startswith('"""')]
    assert len(code) <= 12, code


class TestLike:
    """``--like``: a preset, or the ``config.json`` of a model."""

    CONFIG = (
        '{"model_type": "deepseek_v3", "hidden_size": 8, "n_routed_experts": 8, "n_group": null'
    )
    CONFIG += ', "num_experts_per_tok": 2, "norm_topk_prob": true, "routed_scaling_factor": 9}'

    def test_it_is_green_at_once(self) -> None:
        assert main(["new-adapter", "quick-gate", "--like", "gemma4_text"]) == 0
        check = "moe-routing check quick_gate.py:QuickGateAdapter --max-examples 5"
        code, said = typed(f"{check} --clause 'weights.*' --clause 'robustness.*'", Path.cwd())
        assert code == 0, said

    def test_it_says_what_a_call_has(self) -> None:
        assert main(["new-adapter", "quick-gate", "--like", "deepseek_v3"]) == 0
        text = Path("quick_gate.py").read_text()
        assert 'CLAIM = Claim.of_preset("deepseek_v3")\n' in text
        assert "#     given.selection_bias     [E], float32, or None\n" in text
        assert "#     config.groups.kept       4 in deepseek-ai/DeepSeek-V3\n" in text

    def test_of_a_configuration_it_says_what_differs(self) -> None:
        Path("config.json").write_text(self.CONFIG)
        assert main(["new-adapter", "quick-gate", "--like", "config.json"]) == 0
        text = Path("quick_gate.py").read_text()
        claim = text.partition("CLAIM = ")[2].partition("\n)\n")[0]
        lines = ['Claim.of_preset(\n    "deepseek_v3",', "groups=(None,),", "scale=(9,),"]
        assert claim == "\n    ".join(lines)

    @pytest.mark.parametrize(
        ("word", "words"),
        [
            ("deepseek_v33", "Unknown preset 'deepseek_v33': did you mean deepseek_v3"),
            ("", "Unknown preset ''"),
            ("nothing.json", "nothing.json: No such file or directory"),
        ],
    )
    def test_an_unknown_model_is_refused_in_one_line(
        self, word: str, words: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["new-adapter", "quick-gate", "--like", word]) == 2
        err = capsys.readouterr().err
        assert words in err
        assert err.count("\n") == 1, err
        assert tree() == []


class TestPresets:
    """``moe-routing presets``."""

    def test_a_row_fits_in_80_columns(self) -> None:
        lines = list(table(PRESETS, 80))
        assert max(map(len, lines)) <= 80
        (row,) = (line for line in lines if line.split()[:1] == ["deepseek_v3"])
        assert " ".join(row.split()).startswith("deepseek_v3 256 8 7168 4 of 8 2.5 deepseek-ai/")

    def test_a_configuration_is_read(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("config.json").write_text(TestLike.CONFIG)
        assert main(["presets", "config.json"]) == 0
        words = "sigmoid, bias on the gate or none, renormalised + 1e-20, scaled\n"
        assert words in capsys.readouterr().out

    @pytest.mark.parametrize("word", ["nothing", "[]", "config.json"])
    def test_what_is_unknown_is_refused_in_one_line(
        self, word: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("config.json").write_text('{"model_type": "bert"}')
        assert main(["presets", word]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1, err
        assert "nknown" in err
