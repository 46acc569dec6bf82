"""Every command that the pages print is one that there is: words, options, and files of ours."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from moe_routing.conformance.cli import COMMANDS, command_line

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "tox.ini")),
    *(ROOT / ".github" / "workflows").glob("*.yml"),
    *(ROOT / "docs").rglob("*.md"),
]
OF_OURS = re.compile(r"(?<![\w/.-])(?:tests|benchmarks|implementations|conformance)/[\w/]+\.\w+")
MODULE = re.compile(r"python -m (moe_routing[\w.]*)")
ENVIRONMENT = re.compile(r"tox (?:run |exec -q )?-e ([\w-]+)")
SYNOPSIS = re.compile(r"\.\.\.|\[\w|[A-Z]\||SHELL|\{posargs\}|\"\$")
"""What stands for words that are left out, or for a choice of them."""
OTHERS = {"tests/integrations/test_routing_parity.py", "tests/test_gate.py"}
"""Files of axolotl, and of the project that a page makes."""

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="no source tree here")


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of each ``moe-routing`` command on a line of its own."""
    text = re.sub(r"\\\n\s*", "", page.read_text())
    for line in re.findall(r"^ *(?:\$ |- run: |.*test -- )?(moe-routing .*)$", text, re.M):
        if not SYNOPSIS.search(line):
            yield words_of(line)


@cache
def parser() -> argparse.ArgumentParser:
    return command_line()


def words_of(line: str) -> list[str]:
    """Split a line as a shell does, up to what follows the command."""
    words = shlex.split(line, comments=True)
    ends = [at for at, word in enumerate(words) if re.fullmatch(r"\||\d?>.*|&&|;", word)]
    return words[1 : min(ends, default=None)]


def test_there_are_many() -> None:
    assert sum(len(list(commands(page))) for page in PAGES) > 100


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_parses(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = []
    for words in commands(page):
        try:
            _, rest = parser().parse_known_args(words)
        except SystemExit as ended:
            if ended.code:
                wrong.append((shlex.join(words), capsys.readouterr().err))
        else:
            wrong += [(shlex.join(words), word) for word in rest if word.startswith("-")]
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_option_in_a_sentence_is_one_of_its_command(page: Path) -> None:
    parsers = parser()._subparsers._group_actions[0].choices
    wrong = []
    for command, rest in re.findall(r"`moe-routing ([a-z-]+)([^`]*)`", page.read_text()):
        known = parsers[command]._option_string_actions if command in parsers else {}
        options = re.findall(r"(?<=\s)--?[a-z][\w-]*", rest)
        wrong += [(command, each) for each in options if each not in known]
        wrong += [(command, "no such command")] * (not known and command[0] != "-")
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_module_and_environment_is_there(page: Path) -> None:
    text = page.read_text()
    modules = [each.rstrip(".").split(".")[1:] for each in MODULE.findall(text)]
    files = [each for each in OF_OURS.findall(text) if "/X." not in each]
    missing = [each for each in files if each not in OTHERS and not (ROOT / each).exists()]
    missing += [each for each in modules if not is_module(ROOT.joinpath(*each))]
    tox = (ROOT / "tox.ini").read_text()
    missing += [each for each in ENVIRONMENT.findall(text) if f"[testenv:{each}]" not in tox]
    assert not missing


def is_module(path: Path) -> bool:
    return path.with_suffix(".py").is_file() or path.is_dir()


def test_running_lists_every_command() -> None:
    page = (ROOT / "docs" / "running.md").read_text()
    listed = set(re.findall(r"^    moe-routing ([\w-]+)", page.partition("\n## ")[0], re.M))
    names = {each.__name__.rpartition(".")[2].replace("_", "-") for each in COMMANDS}
    assert listed - {"--version"} == names
