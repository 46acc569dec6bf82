"""``[tool.moe-routing]``: what it sets, what outdoes it, and what is wrong with it, in one line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moe_routing.conformance.checking.configuration import (
    Configuration,
    ConfigurationError,
    configuration,
)
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.checking.profiles import PROFILES
from moe_routing.conformance.checking.results import ClauseResult
from moe_routing.conformance.clauses import CLAUSES, Clause
from moe_routing.conformance.cli import command_line, configured, main
from moe_routing.conformance.known.divergence import KnownError
from moe_routing.conformance.pytest_plugin import ADAPTER
from moe_routing.conformance.pytest_plugin.items import conformance_tests
from moe_routing.implementations import Adapter, AdapterError, load_adapter

DATA = Path(__file__).parents[1] / "data"
FEW = ("--clause=weights.unbiased", "--max-examples=3", "-q", "--no-isolate")
KNOWN = """
[[divergence]]
id = "bias"
adapters = ["biased-weights"]
clause = "weights.unbiased"
reason = "It is so."
link = "https://example.org"
witness = {witness!r}
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text((DATA / "wrong_adapters.py").read_text())


def table(text: str) -> None:
    Path("pyproject.toml").write_text(f"[tool.moe-routing]\n{text}\n", encoding="utf-8")


def checked(*words: str) -> dict[str, Any]:
    main(["check", *words, *FEW, "--json=report.json"])
    found: dict[str, Any] = json.loads(Path("report.json").read_text())
    return found


class TestCheck:
    def test_takes_what_the_table_says(self) -> None:
        table('adapters = ["mine.py:Router"]\nseed = 7\nprofile = "smoke"')
        run = checked()
        assert [each["name"] for each in run["adapters"]] == ["right"]
        assert (run["seed"], run["profile"]) == (7, "smoke")

    def test_the_command_line_outdoes_it(self) -> None:
        table('adapters = ["mine.py:Router"]\nseed = 7\nprofile = "smoke"')
        run = checked("mine.py:BiasedWeights", "--seed=0", "--profile=ci")
        assert [each["name"] for each in run["adapters"]] == ["biased-weights"]
        assert (run["seed"], run["profile"]) == (0, "ci")

    def test_paths_in_it_start_at_its_folder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        table('adapters = ["mine.py:Router"]')
        Path("below/it").mkdir(parents=True)
        monkeypatch.chdir("below/it")
        assert [each["name"] for each in checked()["adapters"]] == ["right"]
        found = configuration(Path.cwd())
        assert found.adapters == (os.path.join("..", "..", "mine.py:Router"),)

    def test_a_device_of_the_table_reaches_the_adapter(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        table('device = "cuda"')
        assert main(["check", "mine.py:Router", *FEW]) == 2
        assert "cannot run on cuda: it has no device argument" in capsys.readouterr().err
        assert main(["check", "mine.py:Router", *FEW, "--device=cpu"]) == 0

    def test_the_command_of_a_story_names_what_differs_from_the_table(self) -> None:
        table('profile = "smoke"\nseed = 3')
        for words in (["--profile=ci", "--seed=0"], []):
            arguments = command_line().parse_args(["check", "mine.py:Router", *words])
            configured.fill(arguments)
            assert configured.again(arguments, arguments.seed) == words

    def test_without_an_adapter_anywhere_it_says_where_one_may_stand(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            main(["check"])
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "[tool.moe-routing] of pyproject.toml" in line

    def test_its_known_divergences_stand_with_the_shipped_ones(self) -> None:
        assert checked("mine.py:BiasedWeights")["exit_code"] == 1
        case = Path("moe-routing-cases/biased-weights/weights.unbiased.json")
        Path("known.toml").write_text(KNOWN.format(witness=str(case)))
        table('known = ["known.toml"]')
        run = checked("mine.py:BiasedWeights")
        (clause,) = run["adapters"][0]["clauses"]
        assert clause["status"] == "known", clause["message"]

    def test_no_report_replaces_a_list_of_it(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("known.toml").write_text("")
        table('known = ["known.toml"]')
        assert main(["check", "mine.py:Router", *FEW, "--json=known.toml"]) == 2
        assert "would overwrite known.toml" in capsys.readouterr().err


class TestWrong:
    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            ('profil = "ci"', ["profil = 'ci'", "did you mean profile?"]),
            ("x = 1", ["x = 1", "its keys are adapters, device, known, profile and seed"]),
            ('profile = "fast"', ["profile = 'fast'", "one of smoke, ci", 'profile = "smoke"']),
            ("profile = []", ["profile = []", "one of smoke, ci"]),
            ("seed = true", ["seed = True", "a whole number", "seed = 0"]),
            ("seed = 1.5", ["seed = 1.5", "a whole number"]),
            ('adapters = "torch"', ["adapters = 'torch'", "a list of adapters"]),
            ("adapters = [1]", ["adapters = [1]", "a list of adapters"]),
            ('known = [""]', ["known = ['']", "a list of files"]),
            ("device = 0", ["device = 0", "the name of a device", 'device = "cuda"']),
        ],
    )
    def test_a_key_or_value_is_named_with_its_rule_and_the_fix(
        self, text: str, parts: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        table(text)
        assert main(["check", "mine.py:Router"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("moe-routing: pyproject.toml: [tool.moe-routing] has ")
        for part in parts:
            assert part in line

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (b"[tool", "is not TOML"),
            (b"\xff", "is not TOML"),
            (b"[tool]\nmoe-routing = 3", "is 3, but should be a table"),
            (b"[tool.moe_routing]\nseed = 1", "write [tool.moe-routing]"),
        ],
    )
    def test_a_file_that_is_none_is_named(self, text: bytes, words: str) -> None:
        Path("pyproject.toml").write_bytes(text)
        with pytest.raises(ConfigurationError, match=r"pyproject\.toml") as raised:
            configuration(Path.cwd())
        assert words in str(raised.value)
        assert "\n" not in str(raised.value)


class TestFound:
    def test_the_nearest_table_counts_and_none_beyond_the_repository(self) -> None:
        table("seed = 1")
        inner = Path("inner/deep")
        inner.mkdir(parents=True)
        Path("inner/pyproject.toml").write_text("[project]\nname = 'x'\n")
        assert configuration(inner).seed == 1, "a file without the table is passed over"
        Path("inner/.git").mkdir()
        assert configuration(inner) == Configuration()

    @pytest.mark.parametrize("text", ["", "[tool]", "tool = 3", "[tool.moe-routing]"])
    def test_without_a_table_nothing_is_set(self, text: str) -> None:
        Path("pyproject.toml").write_text(text)
        assert configuration(Path.cwd()) == Configuration()


class TestPytest:
    """The plugin notes pytest's root; these tests name a folder of their own as it."""

    @pytest.fixture(autouse=True)
    def _root(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("moe_routing.conformance.pytest_plugin.items.ROOTS", [tmp_path])

    def test_the_adapter_may_be_that_of_the_table(self) -> None:
        table('adapters = ["mine.py:Router"]')
        assert getattr(conformance_tests(), ADAPTER) == "mine.py:Router"

    @pytest.mark.parametrize("text", ["", 'adapters = ["mine.py:Router", "torch"]'])
    def test_it_must_be_one(self, text: str) -> None:
        table(text)
        with pytest.raises(ValueError, match=r"given an adapter, or one in \[tool.moe-routing\]"):
            conformance_tests()

    def test_a_wrong_value_is_one_line(self) -> None:
        table("seed = 'x'")
        with pytest.raises(ConfigurationError, match="a whole number"):
            conformance_tests("mine.py:Router")

    def test_known_is_read(self) -> None:
        table('known = ["absent.toml"]')
        with pytest.raises(KnownError, match=r"Cannot read absent\.toml"):
            conformance_tests("mine.py:Router")

    def test_profile_and_seed_are_those_of_the_table_unless_given(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        table('profile = "smoke"\nseed = 5')
        plans: list[Plan] = []

        def noted(adapter: Adapter, clause: Clause, plan: Plan) -> ClauseResult:
            plans.append(plan)
            return ClauseResult(id=clause.id, level="MUST", chapter="weights", status="pass")

        monkeypatch.setattr("moe_routing.conformance.pytest_plugin.items.check_clause", noted)
        config = SimpleNamespace(getoption=lambda name, default=None: default)
        for given in ({}, {"profile": "ci", "seed": 0}):
            one: Any = conformance_tests("mine.py:Router", clauses="weights.sum", **given)
            one(CLAUSES["weights.sum"], SimpleNamespace(config=config))
        found = [(each.max_examples, each.seed) for each in plans]
        assert found == [(PROFILES["smoke"].max_examples, 5), (PROFILES["ci"].max_examples, 0)]

    def test_a_device_is_for_what_is_made_here(self) -> None:
        table('device = "cuda"')
        with pytest.raises(AdapterError, match="cannot run on cuda"):
            conformance_tests("mine.py:Router")
        made = load_adapter("mine.py:Router")
        assert getattr(conformance_tests(made), ADAPTER) is made
