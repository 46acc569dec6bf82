"""Loading adapters: what a reference nearly names, and where an exception on the way arose."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moe_routing.conformance import Case, Plan
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.replay import replay_case
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.cli import main
from moe_routing.conformance.trial.call import Raised
from moe_routing.conformance.trial.trial import Trial
from moe_routing.implementations import (
    AdapterError,
    Capabilities,
    Claim,
    GroupRule,
    Limits,
    Numerics,
    expand,
    find_adapter,
    load_adapter,
    registry,
)
from moe_routing.implementations.protocol import offered
from moe_routing.implementations.registry import FAMILIES, ON_RANKS
from moe_routing.implementations.traces import place, where
from moe_routing.reference import RouterConfig, RouterInputs, route

GATE = """
from moe_routing.implementations import Capabilities, Claim
from moe_routing.reference import RouterConfig, route
from helper import deep

class Flat:
    name = "flat"
    def capabilities(self):
        return Capabilities(claims=(Claim.plain(),))
    def route(self, config, inputs):
        self.capabilities().require(config, inputs)
        if inputs.num_tokens == 0:
            return deep()
        return route(RouterConfig(**vars(config)), inputs)
"""
HELPER = """
import json
def deep():
    raise ValueError("no tokens")
def library():
    return json.loads("{")
"""
NEARLY = {
    "gate_of_mine.py": "gate_of_mine.py:Flat",
    "gate_of_mine.py:": "gate_of_mine.py:Flat",
    "gate_of_mine.py::Flat": "gate_of_mine.py:Flat",
    "gate_of_mine.py.Flat": "gate_of_mine.py:Flat",
    "gate_of_mine": "gate_of_mine.py:Flat",
    "gate_of_mine.Flat": "gate_of_mine.py:Flat",
    "./gate_of_mine:Flat": "gate_of_mine.py:Flat",
    "deep/two.py": "deep/two.py:One or deep/two.py:Two",
    "deep/two::Tow": "deep/two.py:Two",
    "deep.two": "deep/two.py:One or deep/two.py:Two",
    "deep/two:Two": "deep/two.py:Two",
    "broken.py": "broken.py:NAME",
    "functions.py": "functions.py:make",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of adapters, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    files = {
        "gate_of_mine.py": GATE,
        "helper.py": HELPER,
        "deep/two.py": "class One: pass\nclass _Own: pass\nclass Two: pass\n",
        "broken.py": "class (",
        "functions.py": "def make(): pass\ndef _own(): pass\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    yield tmp_path
    sys.modules.pop("helper", None)


def test_a_shipped_name_is_found_without_the_modules_of_families(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [registry.registered()[name] for name in registry.SHIPPED]
    monkeypatch.setattr(registry, "registered", None)
    assert [":".join(find_adapter(name)) for name in registry.SHIPPED] == found
    assert [*map(registry.expand, registry.SHIPPED)] == [[name] for name in registry.SHIPPED]


class TestNearlyNamed:
    @pytest.mark.parametrize("reference", NEARLY)
    def test_a_file_is_found_under_what_it_may_be_called(self, reference: str) -> None:
        with pytest.raises(AdapterError) as refused:
            find_adapter(reference)
        words = f"Unknown adapter {reference!r}: did you mean {NEARLY[reference]}?"
        assert str(refused.value) == words

    def test_a_module_that_is_not_there_may_be_a_file(self) -> None:
        with pytest.raises(AdapterError) as refused:
            load_adapter("gate_of_mine:Flat")
        assert str(refused.value) == (
            "Cannot import gate_of_mine: ModuleNotFoundError: No module named 'gate_of_mine'; "
            "did you mean gate_of_mine.py:Flat?"
        )

    def test_a_module_that_cannot_be_imported_is_the_one_that_is_meant(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(folder)
        (folder / "needy.py").write_text("import a_module_that_nobody_has")
        with pytest.raises(AdapterError) as refused:
            load_adapter("needy:Flat")
        assert str(refused.value).endswith(
            "No module named 'a_module_that_nobody_has' (needy.py:1)"
        )

    def test_a_file_that_is_not_there_may_be_another(self) -> None:
        with pytest.raises(AdapterError, match=r"; did you mean deep/two\.py\?$"):
            find_adapter("deep/twoo.py:Two")

    def test_the_command_line_says_so_in_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["check", "gate_of_mine.py"]) == 2
        words = "Unknown adapter 'gate_of_mine.py': did you mean gate_of_mine.py:Flat?"
        assert capsys.readouterr().err == f"moe-routing: {words}\n"


class TestPlaces:
    """An exception is reported with its file and line, and the way there."""

    def raised(self, call: Callable[[], Any]) -> BaseException:
        try:
            call()
        except Exception as error:
            return error
        raise AssertionError("it should raise")

    def test_of_a_call_it_is_the_innermost_line_of_the_backend(self, folder: Path) -> None:
        adapter = load_adapter("gate_of_mine.py:Flat")
        clause = CLAUSES["robustness.empty-batch"]
        result = check_clause(adapter, clause, Plan(clauses=(clause,), max_examples=1))
        assert result.message == "raised ValueError: no tokens (helper.py:4)"
        assert result.story[-2:] == ("helper.py:4 in deep", "gate_of_mine.py:13 in route")

    def test_so_it_is_where_the_clause_is_about_something_else(self, folder: Path) -> None:
        adapter = load_adapter("gate_of_mine.py:Flat")
        clause = CLAUSES["layout.well-formed"]
        result = check_clause(adapter, clause, Plan(clauses=(clause,), max_examples=1))
        assert (result.status, result.failure.stage) == ("error", "call")
        assert result.message == "raised ValueError: no tokens (helper.py:4)"
        assert result.story[-2:] == ("helper.py:4 in deep", "gate_of_mine.py:13 in route")
        again = replay_case(adapter, clause, result.case)
        assert (again.message, again.details) == (result.message, result.story)

    def test_what_a_library_raises_is_reported_with_its_caller(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(folder)
        from helper import library

        error = self.raised(library)
        assert place(error) == " (helper.py:6)"
        first, *backend = where(error)
        assert re.fullmatch(r"\S+json/decoder\.py:\d+ in raw_decode", first)
        assert backend[0] == "helper.py:6 in library"

    def test_the_suite_is_no_backend(self) -> None:
        inputs = RouterInputs(hidden=[[1.0]], gate_weight=[[1.0], [2.0]])
        error = self.raised(lambda: route(RouterConfig(num_experts=3, top_k=1), inputs))
        assert re.fullmatch(r" \(\S*test_loading\.py:\d+\)", place(error))
        assert not [line for line in where(error) if "reference/" in line]

    def test_of_a_shipped_adapter_it_is_the_line_of_the_adapter(self) -> None:
        pytest.importorskip("torch")
        config = RouterConfig.unchecked(num_experts=2, top_k=5)
        inputs = RouterInputs(hidden=[[1.0]], gate_weight=[[1.0], [2.0]])
        trial = Trial(load_adapter("torch"), Case(config=config, inputs=inputs))
        with pytest.raises(Raised, match=r"\(\S*(implementations|reference)/\w+\.py:\d+\)$"):
            _ = trial.native

    def test_a_place_elsewhere_is_reported_in_full(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(tmp_path)
        from helper import deep

        (tmp_path / "else").mkdir()
        monkeypatch.chdir(tmp_path / "else")
        assert place(self.raised(deep)) == f" ({tmp_path}/helper.py:4)"

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("x = 1\n1 / 0", "Cannot import it.py: ZeroDivisionError: division by zero (it.py:2)"),
            ("class (", "Cannot import it.py: SyntaxError: invalid syntax (it.py, line 1)"),
            ("def A():\n return {}['a']", "Cannot build it.py:A: KeyError: 'a' (it.py:2)"),
            ("class A(\n int): pass\nimport it_is_not", "'it_is_not' (it.py:3)"),
            ("from helper import deep\ndeep()", "ValueError: no tokens (helper.py:4)"),
            ("assert 0", "AssertionError: no message (it.py:1)"),
        ],
    )
    def test_of_an_adapter_that_cannot_be_loaded_it_is_reported_too(
        self, text: str, words: str
    ) -> None:
        Path("it.py").write_text(text)
        with pytest.raises(AdapterError) as refused:
            load_adapter("it.py:A")
        assert words in str(refused.value)


class TestSubclasses:
    @pytest.mark.parametrize("kind", [Capabilities, Claim, GroupRule, Limits, Numerics])
    def test_what_cases_are_drawn_from_has_none(self, kind: type) -> None:
        with pytest.raises(TypeError) as refused:
            type("Mine", (kind,), {})
        assert str(refused.value).startswith(f"Cannot subclass {kind.__name__} as Mine: calls are")

    @pytest.mark.parametrize("options", [[], ["--no-isolate"]])
    def test_an_adapter_that_has_one_is_refused_in_one_line(
        self, options: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        lines = [
            "from moe_routing.implementations import Capabilities",
            "class Even(Capabilities):",
            "    def admits(self, config, inputs): return config.num_experts % 2 == 0",
        ]
        Path("even.py").write_text("\n".join(lines))
        assert main(["check", "even.py:Adapter", *options]) == 2
        said = capsys.readouterr().err
        assert said.startswith("moe-routing: Cannot import even.py: TypeError: Cannot subclass ")
        assert said.endswith("with Capabilities(...) (even.py:2)\n")


class Dropping:
    """Has a rate of drops, by the name of a method."""

    name, drop = "dropping", 0.1

    def capabilities(self) -> Capabilities:
        return Capabilities()

    def route(self, config: Any, inputs: Any) -> Any:
        return route(config, inputs)


def test_a_number_by_the_name_of_a_method_is_none() -> None:
    assert offered(Dropping()) == ("route",)


NAMED = ("reference", "drops:nllb", "ep:torchtitan", "gate_of_mine.py:Flat")


@pytest.mark.parametrize("name", NAMED)
def test_no_family_is_imported_but_that_of_the_name(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All of them take as long as NumPy, in each process that loads an adapter."""
    monkeypatch.chdir(tmp_path)
    Path("gate_of_mine.py").touch()
    for families in (FAMILIES, ON_RANKS):
        for other in set(families) - {name.partition(":")[0]}:
            monkeypatch.setitem(families, other, "not.there")
    assert expand(name) == [name]
    assert find_adapter(name)[1]
    with pytest.raises(ModuleNotFoundError):
        expand("*:nllb")
