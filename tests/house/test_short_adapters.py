"""An adapter is short: a class that the suite calls has at most 60 lines, docstrings included.

A class counts if it defines one of the protocol's methods, so that what an adapter inherits its
methods from counts as well: it cannot be made short by a long base.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from for_each import for_each

from moe_routing.implementations.protocol import METHODS, ON_RANK

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "implementations"
CALLED = {"capabilities", "rank_gradients", ON_RANK, *METHODS}
MOST_LINES = 60
MOST_IN_A_FILE = 300

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the source tree is not here")


@dataclass(frozen=True)
class Found:
    """A class of an adapter: where it is, and how many lines it spans."""

    where: str
    lines: int


def names_of(statement: ast.stmt) -> list[str]:
    """Return what a statement of a class body defines: a method, or names bound to one."""
    if isinstance(statement, ast.FunctionDef):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return [each.id for each in targets if isinstance(each, ast.Name)]


def adapter_classes(text: str, name: str) -> Iterator[Found]:
    """Yield the classes of a module with a method that the suite calls; protocols are none."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ClassDef):
            continue
        protocol = any(isinstance(b, ast.Name) and b.id == "Protocol" for b in node.bases)
        if not protocol and CALLED & {n for each in node.body for n in names_of(each)}:
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            yield Found(f"{name}:{node.lineno} {node.name}", lines)


def files() -> dict[str, Path]:
    return {str(path.relative_to(ROOT)): path for path in sorted(FOLDER.rglob("*.py"))}


def all_adapter_classes() -> list[Found]:
    found = (adapter_classes(path.read_text(), name) for name, path in files().items())
    return [each for module in found for each in module]


def test_no_adapter_has_more_than_60_lines() -> None:
    found = sorted(all_adapter_classes(), key=lambda each: each.lines, reverse=True)
    long = [f"{each.where}: {each.lines} lines" for each in found if each.lines > MOST_LINES]
    assert len(found) > 30, "the classes of adapters should be found"
    assert not long, (
        f"An adapter has at most {MOST_LINES} lines, but {'; '.join(long)}: give each protocol "
        "that it serves (routes, permutation, experts) a class of its own to inherit from"
    )


@for_each(files)
def test_a_file_of_adapters_has_at_most_300_lines(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MOST_IN_A_FILE, f"{path.name} has {lines} lines: split it by subject"


def test_the_measure_counts_a_base_and_no_protocol() -> None:
    text = (
        "class Base:\n    def route(self): ...\n\n    replay = forced\n\n"
        "class Router(Base):\n    name = 'router'\n\n"
        "class Sorts:\n    permute = sort\n\n"
        "class Routes(Protocol):\n    def route(self): ...\n"
    )
    found = {each.where.split()[1]: each.lines for each in adapter_classes(text, "file.py")}
    assert found == {"Base": 4, "Sorts": 2}
