"""``conformance_tests`` in somebody else's repository: one item a clause, in plain pytest."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from moe_routing.conformance import (
    Case,
    conformance_tests,
    load_case,
    save_case,
    select_clauses,
)
from moe_routing.conformance.clauses import NoSuchClause
from moe_routing.conformance.known.divergence import KnownError
from moe_routing.implementations import AdapterError, load_adapter
from moe_routing.implementations.reference import ReferenceAdapter
from moe_routing.reference import RouterConfig, RouterInputs

SUITE = '''
from dataclasses import replace
from pathlib import Path
from moe_routing.conformance import conformance_tests
from moe_routing.implementations import Capabilities, Claim
from moe_routing.reference import route

class Mine:
    """Right; a softmax only, and without groups."""
    name = "mine"
    claims = Capabilities(claims=(Claim(score=("softmax",), groups=(None,)),))
    def capabilities(self):
        return self.claims
    def route(self, config, inputs):
        self.claims.require(config, inputs)
        return route(config, inputs)

class Doubling(Mine):
    """Doubles its weights."""
    name = "doubling/1"
    def route(self, config, inputs):
        right = super().route(config, inputs)
        return replace(right, weights=2.0 * right.weights)

CLAUSES = ("weights.match", "selection.in-range", "groups.kept-only")
test_mine = conformance_tests(Mine(), profile="smoke", clauses=CLAUSES)
test_doubling = conformance_tests(Doubling(), profile="smoke", clauses=CLAUSES)
LISTED = Path(__file__).with_name("known.toml")
test_listed = conformance_tests(
    Doubling(), profile="smoke", clauses=["weights.*"], known=LISTED
)

class TestGrouped:
    test_in_a_class = staticmethod(conformance_tests(Mine(), clauses=["layout.dtypes"]))
'''

OUTCOMES = {
    "test_mine[weights.match]": "passed",
    "test_mine[selection.in-range]": "passed",
    "test_mine[groups.kept-only]": "skipped",
    "test_doubling[weights.match]": "failed",
    "test_doubling[selection.in-range]": "passed",
    "test_doubling[groups.kept-only]": "skipped",
    "test_listed[weights.match]": "xfailed",
    "test_listed[weights.unbiased]": "xfailed",
    "TestGrouped::test_in_a_class[layout.dtypes]": "passed",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another repository, with a list of known divergences."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "tests").mkdir()
    (folder / "tests" / "test_mine.py").write_text(SUITE)
    inputs = RouterInputs(hidden=[[1.0, 0.25, -0.5]], gate_weight=[[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    config = RouterConfig(num_experts=3, top_k=2)
    save_case(Case(config=config, inputs=inputs), folder / "tests" / "doubled.json")
    entry = {
        "id": "doubled",
        "adapters": ["doubling/1"],
        "clause": "weights.match",
        "affects": ["weights.*"],
        "reason": "weights are doubled",
        "link": "https://example.org/1",
        "witness": "doubled.json",
    }
    (folder / "tests" / "known.toml").write_text(tomli_w.dumps({"divergence": [entry]}))
    return folder


def run(folder: Path, *options: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-vv", "-rs", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def outcomes(out: str) -> dict[str, str]:
    words = "PASSED|FAILED|SKIPPED|XFAIL|XPASS|ERROR"
    found = re.findall(rf"test_mine\.py::(\S+\]) (?:<- \S+ )?({words})", out)
    return {name: "xfailed" if word == "XFAIL" else word.lower() for name, word in found}


@pytest.fixture(scope="module")
def plain(folder: Path) -> tuple[int, str]:
    """What pytest says there, without the cache."""
    return run(folder, "-p", "no:cacheprovider")


def test_every_clause_is_an_item_that_ends_as_it_should(plain: tuple[int, str]) -> None:
    code, out = plain
    found = outcomes(out)
    assert {name: found.get(name) for name in OUTCOMES} == OUTCOMES, out
    listed = {name for name in found if name.startswith("test_listed")}
    assert listed == {f"test_listed[{each.id}]" for each in select_clauses(["weights.*"])}
    assert code == 1
    assert "nothing claimed has groups=True" in out, "a skip should say why"


def test_the_items_are_the_same_under_strict_settings_and_importlib(
    folder: Path, plain: tuple[int, str]
) -> None:
    strict = ["--strict-markers", "--strict-config", "-o", "xfail_strict=true"]
    _, out = run(folder, "--import-mode=importlib", *strict)
    assert outcomes(out) == outcomes(plain[1])


def test_a_failure_shows_its_story_and_saves_its_case(folder: Path, plain: tuple[int, str]) -> None:
    failures = plain[1].partition("= FAILURES =")[2].partition("short test summary")[0]
    assert "fail: A slot's weight is its expert's weight" in failures
    assert re.search(r"weights\[0, 0\]=2, but should be in \[0\.9999", failures)
    assert "reference experts [0] with weights [1.0]" in failures
    assert re.search(r"^rules     WGT-2, .* \(docs/spec/weights\.md\)$", failures, re.M)
    command = re.search(r"Reproduce with: moe-routing replay (\S+) ", failures)
    assert command, failures
    case, clause = load_case(folder / command[1])
    assert clause == "weights.match"
    assert case.inputs.num_tokens == 1
    assert "Traceback" not in failures
    assert "pytest_items.py" not in failures, "the suite's own code is of no interest there"


class TestArguments:
    ADAPTER = load_adapter("reference")

    class Half:
        name = "half"

    class Raising(ReferenceAdapter):
        def __init__(self) -> None:
            raise RuntimeError("no gate")

    class Unnamed(ReferenceAdapter):
        name = 7  # type: ignore[assignment]

    def test_an_unknown_profile_names_the_known_ones(self) -> None:
        with pytest.raises(
            ValueError, match=r"one of smoke, ci, nightly, huge, soak but got 'weekly'"
        ):
            conformance_tests(self.ADAPTER, profile="weekly")

    def test_a_glob_that_matches_nothing_is_refused(self) -> None:
        with pytest.raises(NoSuchClause, match="No clause matches 'weight'"):
            conformance_tests(self.ADAPTER, clauses=["weight"])

    def test_a_list_that_cannot_be_read_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(KnownError, match=r"Cannot read .*absent\.toml"):
            conformance_tests(self.ADAPTER, known=tmp_path / "absent.toml")

    @pytest.mark.parametrize("made_by", [ReferenceAdapter, lambda: ReferenceAdapter()])
    def test_a_class_or_a_function_makes_the_adapter(self, made_by: Any) -> None:
        one = conformance_tests(made_by, clauses=["weights.match"])
        (mark,) = one.pytestmark
        assert mark.kwargs["ids"] == ["weights.match"]

    def test_a_glob_may_be_given_alone(self) -> None:
        (mark,) = conformance_tests(self.ADAPTER, clauses="selection.k-equals-e").pytestmark
        assert mark.kwargs["ids"] == ["selection.k-equals-e"]

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            (3, "int is not an adapter: it has no name, capabilities, route (type=int)"),
            (Half, "TestArguments.Half is not an adapter: it has no capabilities, route"),
            (Half(), "TestArguments.Half is not an adapter: it has no capabilities, route"),
            (Raising, "Cannot build TestArguments.Raising: RuntimeError: no gate (test_items"),
            (Unnamed(), "TestArguments.Unnamed to have a name (a printable str) but got 7"),
        ],
    )
    def test_what_is_no_adapter_is_refused_in_one_line(self, value: Any, words: str) -> None:
        with pytest.raises(AdapterError) as refused:
            conformance_tests(value)
        message = str(refused.value).replace(f"{Path(__file__).parent}/", "")
        assert words in re.sub(r"\((\S+/)?test_items", "(test_items", message)
        assert "\n" not in message

    def test_without_globs_every_clause_has_an_item_but_those_of_ranks_and_promises(self) -> None:
        (mark,) = conformance_tests(self.ADAPTER).pytestmark
        made = (None, "gate_dtype", "from_each", "shared_slots")
        held = [each for each in select_clauses([]) if each.promise in made]
        assert mark.kwargs["ids"] == [each.id for each in held if "ranks" not in each.method]
