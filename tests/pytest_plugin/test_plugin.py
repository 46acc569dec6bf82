"""The pytest plugin in somebody else's repository: options, marker, xdist, replay lines."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moe_routing.conformance.pytest_plugin.items import _seed

ROUTER = '''
"""A router that doubles its weights, and notes down every call."""
import hashlib, os
from dataclasses import replace
from moe_routing.implementations import Capabilities, Claim
from moe_routing.reference import route

class Doubling:
    name = "doubling"
    claims = Capabilities(claims=(Claim(score=("softmax",), groups=(None,)),))
    def capabilities(self):
        return self.claims
    def route(self, config, inputs):
        self.claims.require(config, inputs)
        right = route(config, inputs)
        return replace(right, weights=2.0 * right.weights)

class Noting(Doubling):
    name = "noting"
    def route(self, config, inputs):
        digest = hashlib.sha256(inputs.hidden.tobytes() + repr(config).encode()).hexdigest()
        with open("calls.txt", "a") as calls:
            calls.write(digest + "\\n")
        return route(config, inputs)

class Scaling(Doubling):
    """Not to be made from nothing."""
    def __init__(self, factor):
        self.factor = factor
    def route(self, config, inputs):
        right = route(config, inputs)
        return replace(right, weights=self.factor * right.weights)
'''

NOTES = """
from moe_routing.conformance import conformance_tests
from router_of_mine import Noting

test_noting = conformance_tests(Noting(), profile="smoke", clauses=["weights.scale"])

def test_other():
    pass
"""

REPLAYS = """
from moe_routing.conformance import conformance_tests
from router_of_mine import Doubling, Scaling

class Here(Doubling):
    name = "here"

thrice = Scaling(3.0)
ONE = {"profile": "smoke", "clauses": ["weights.match"]}
test_local_class = conformance_tests(Doubling(), **ONE)
test_class_here = conformance_tests(Here(), **ONE)
test_variable = conformance_tests(thrice, **ONE)
test_nameless = conformance_tests(Scaling(4.0), **ONE)
def made():
    return Scaling(6.0)

test_made = conformance_tests(made, **ONE)
test_class_itself = conformance_tests(Here, **ONE)
test_named = conformance_tests("tests/router_of_mine.py:Doubling", **ONE)

class TestInside:
    test_nameless = staticmethod(conformance_tests(Scaling(5.0), **ONE))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another repository, with a router next to its tests."""
    folder = tmp_path_factory.mktemp("elsewhere")
    tests = folder / "tests"
    tests.mkdir()
    (tests / "router_of_mine.py").write_text(ROUTER)
    (tests / "test_notes.py").write_text(NOTES)
    (tests / "test_replays.py").write_text(REPLAYS)
    return folder


def run(folder: Path, *argv: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", *argv],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


def noted(folder: Path, *options: str, **environment: str) -> tuple[list[str], str]:
    """The calls that a run made, in an order of their own, and what pytest said."""
    calls = folder / "calls.txt"
    calls.unlink(missing_ok=True)
    _, out = run(folder, "pytest", "-q", "-rA", *options, **environment)
    return sorted(calls.read_text().split()), out


NOTING = ("-k", "noting")


@pytest.fixture(scope="module")
def plain(folder: Path) -> tuple[list[str], str]:
    """A run without options."""
    return noted(folder)


class TestOptions:
    def test_the_profile_outdoes_the_argument(self, folder: Path, plain: Any) -> None:
        assert len(noted(folder, *NOTING, "--moe-routing-profile=ci")[0]) > 3 * len(plain[0]) // 2

    def test_the_seed_draws_other_cases_and_may_be_that_of_hypothesis(
        self, folder: Path, plain: Any
    ) -> None:
        seven, _ = noted(folder, *NOTING, "--moe-routing-seed=7")
        assert seven != plain[0]
        theirs = noted(folder, *NOTING, "--hypothesis-seed=7", PYTEST_ADDOPTS="")
        assert theirs[0] == seven

    @pytest.mark.parametrize(
        ("options", "given", "seed"),
        [
            ({}, None, 0),
            ({}, 3, 3),
            ({"hypothesis_seed": "7"}, None, 7),
            ({"hypothesis_seed": "-7"}, None, -7),
            ({"hypothesis_seed": "7"}, 3, 3),
            ({"hypothesis_seed": "7", "moe_routing_seed": 0}, 3, 0),
        ],
    )
    def test_the_seed_is_the_options_or_the_arguments_or_that_of_hypothesis(
        self, options: dict[str, Any], given: int | None, seed: int
    ) -> None:
        assert _seed(session_with(options), given) == seed

    def test_a_seed_in_words_is_a_seed(self) -> None:
        one, other = (
            _seed(session_with({"hypothesis_seed": word}), None) for word in ("one", "other")
        )
        assert one != other
        assert one == _seed(session_with({"hypothesis_seed": "one"}), None)

    def test_an_unknown_profile_is_refused(self, folder: Path) -> None:
        code, out = run(folder, "pytest", "--moe-routing-profile=weekly")
        assert code == 4
        assert "smoke" in out

    def test_cases_go_where_the_option_says(self, folder: Path, tmp_path: Path) -> None:
        run(folder, "pytest", "-q", "-k", "local_class", f"--moe-routing-cases={tmp_path}")
        assert (tmp_path / "doubling" / "weights.match.json").is_file()


def session_with(options: dict[str, Any]) -> Any:
    return SimpleNamespace(config=SimpleNamespace(getoption=options.get))


def test_xdist_makes_the_same_calls_and_ends_in_the_same_words(folder: Path, plain: Any) -> None:
    calls, out = noted(folder, "-n2")
    assert calls == plain[0]
    ends = [sorted(re.findall(r"^(?:FAILED|PASSED) \S+", each, re.M)) for each in (out, plain[1])]
    assert len(ends[0]) == 10
    assert ends[0] == ends[1]


class TestMarker:
    def test_selects_the_items(self, folder: Path) -> None:
        options = ["--collect-only", "-q", "--strict-markers", "tests/test_notes.py"]
        _, out = run(folder, "pytest", *options, "-m", "moe_routing")
        assert "test_noting[weights.scale]" in out
        assert "test_other" not in out

    def test_is_listed(self, folder: Path) -> None:
        assert "@pytest.mark.moe_routing:" in run(folder, "pytest", "--markers")[1]

    def test_is_not_needed(self, folder: Path, plain: Any) -> None:
        options = [*NOTING, "--strict-markers"]
        assert noted(folder, *options, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")[0] == plain[0]


class TestReplayLine:
    def test_works_for_every_way_to_name_an_adapter(self, folder: Path, plain: Any) -> None:
        commands = commands_in(plain[1])
        assert [shlex.split(command)[-1] for command in commands] == [
            "tests/router_of_mine.py:Doubling",
            "tests/test_replays.py:Here",
            "tests/test_replays.py:thrice",
            "tests/test_replays.py::test_nameless[weights.match]",
            "tests/test_replays.py:made",
            "tests/test_replays.py:Here",
            "tests/router_of_mine.py:Doubling",
            "tests/test_replays.py::TestInside::test_nameless[weights.match]",
        ]
        for command in dict.fromkeys(commands[:6]):
            again(folder, command)

    def test_is_the_same_in_the_other_import_mode(self, folder: Path, plain: Any) -> None:
        target = ["tests/test_replays.py", "--import-mode=importlib"]
        apart = replay_lines(folder, *target, PYTHONPATH=str(folder / "tests"))
        assert apart == commands_in(plain[1])

    def test_works_from_a_foreign_directory(self, folder: Path, tmp_path: Path) -> None:
        home = tmp_path / "home"
        shutil.copytree(folder / "tests", home)
        suite = home / "test_replays.py"
        suite.write_text(REPLAYS.replace("tests/router_of_mine", f"{home}/router_of_mine"))
        foreign = tmp_path / "foreign"
        foreign.mkdir()
        commands = replay_lines(foreign, str(suite), "-k", "variable or (nameless and not Inside)")
        assert len(commands) == 2
        for command in commands:
            again(foreign, command)

    def test_names_the_module_of_an_installed_package(self, folder: Path, tmp_path: Path) -> None:
        site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
        package = site / "kernels_of_mine"
        package.mkdir(parents=True)
        elsewhere.mkdir()
        (package / "__init__.py").write_text("")
        (package / "router.py").write_text(ROUTER)
        suite = REPLAYS.replace("from router_of_mine", "from .router")
        suite = suite.replace("tests/router_of_mine.py", "kernels_of_mine.router")
        (package / "test_conformance.py").write_text(suite)
        info = site / "kernels_of_mine-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kernels-of-mine\nVersion: 1\n")
        (info / "top_level.txt").write_text("kernels_of_mine\n")
        target = ["--pyargs", "kernels_of_mine", "-k", "not Inside"]
        commands = replay_lines(elsewhere, *target, PYTHONPATH=str(site))
        assert [shlex.split(command)[-1] for command in commands[:3]] == [
            "kernels_of_mine.router:Doubling",
            "kernels_of_mine.test_conformance:Here",
            "kernels_of_mine.test_conformance:thrice",
        ]
        for command in commands[1:4]:
            again(elsewhere, command, PYTHONPATH=str(site))


def replay_lines(folder: Path, *options: str, **environment: str) -> list[str]:
    code, out = run(folder, "pytest", "-q", *options, **environment)
    assert code == 1, out
    return commands_in(out)


def commands_in(out: str) -> list[str]:
    return re.findall(r"^Reproduce with: (.*)$", out, re.M)


def again(folder: Path, command: str, **environment: str) -> None:
    """Run a replay line as a shell would, and find the same failure."""
    program, *words = shlex.split(command)
    argv = words[1:] if program == "python" else ["moe_routing.conformance.cli", *words]
    assert program == "moe-routing" or words[:2] == ["-m", "pytest"], command
    code, out = run(folder, *argv, **environment)
    assert code == 1, out
    assert "but should be in" in out, out


def test_who_does_not_use_it_does_not_pay(tmp_path: Path) -> None:
    (tmp_path / "test_plain.py").write_text(
        "import sys\n"
        "def test_nothing_of_ours_but_the_plugin_is_imported():\n"
        "    ours = sorted(name for name in sys.modules if name.startswith('moe_routing'))\n"
        "    names = ['', '.checking', '.checking.profiles', '.pytest_plugin', '.trial']\n"
        "    names = [*names, '.trial.repeats']\n"
        "    names = ['moe_routing', *('moe_routing.conformance' + each for each in names)]\n"
        "    assert ours == names\n"
        "    assert not {'numpy', 'hypothesis', 'torch', 'rich'} & set(sys.modules)\n"
    )
    code, out = run(tmp_path, "pytest", "-q")
    assert code == 0, out
