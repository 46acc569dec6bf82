"""A project outside the repository: each way in passes, and fails once one character is broken.

The project and the commands are those of ``docs/registering.md``, carried out as they stand.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from documented import Command, carry_out, shell, steps

PAGE = Path(__file__).parents[2] / "docs" / "registering.md"
ADAPTER = "scratch_gate/adapter.py"
WAYS = {
    "a file": f"moe-routing check {ADAPTER}:Gate",
    "an importable module": "moe-routing check scratch_gate.adapter:Gate",
    "an entry point": "moe-routing check gate",
    "pytest": "python -m pytest -q tests",
}

pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(
    not PAGE.is_file() or int(version("setuptools").partition(".")[0]) < 61,
    reason="the docs are not here, or setuptools>=61 is not installed",
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What makes `pip install .` go into a folder of the test's own, and download nothing."""
    site = str(tmp_path_factory.mktemp("site"))
    pip = {"PIP_TARGET": site, "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_UPGRADE": "1"}
    return {**pip, "PIP_NO_BUILD_ISOLATION": "0", "PYTHONPATH": site}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder."""
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module", autouse=True)
def followed(project: Path, environment: dict[str, str]) -> None:
    """The page, carried out from top to bottom: each command finds what it needs by then."""
    todo = list(steps(PAGE))
    assert sum(isinstance(step, Command) for step in todo) == 11
    for step in todo:
        carry_out(step, project, **environment)


def test_the_adapter_is_twelve_lines(project: Path) -> None:
    lines = (project / ADAPTER).read_text().splitlines()
    assert len([line for line in lines if line]) == 12


@pytest.fixture(scope="module")
def broken(project: Path, environment: dict[str, str]) -> dict[str, str]:
    """The project with one character broken, and what was installed of it."""
    file = project / ADAPTER
    right = file.read_text()
    wrong = right.replace("softmax(-1)", "softmax(-2)")
    assert sum(a != b for a, b in zip(right, wrong, strict=True)) == 1
    installed = Path(environment["PYTHONPATH"]) / ADAPTER
    assert installed.read_text() == right
    for each in (file, installed):
        each.write_text(wrong)
    return environment


@pytest.mark.parametrize("way", WAYS)
def test_one_broken_character_fails_it(way: str, project: Path, broken: dict[str, str]) -> None:
    only = " -k weights.match" if way == "pytest" else " --profile smoke --clause weights.match"
    done = shell(WAYS[way] + only, project, **broken)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "weights[0, 0]=1, but should be in [0.499999" in done.stdout
    (last,) = (x for x in done.stdout.splitlines() if "Reproduce with: " in x)
    again = shell(last.partition("Reproduce with: ")[2], project, **broken)
    assert again.returncode == 1, again.stdout + again.stderr
    assert "weights[0, 0]=1, but should be in [0.499999" in again.stdout
    assert sys.executable not in last, "the command should be one that a person would type"
