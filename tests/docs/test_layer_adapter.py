"""The adapter of a layer in docs/adapters.md: it passes, and a shared expert twice is told so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from moe_routing.conformance import Plan, select_clauses
from moe_routing.conformance.report.text import story_lines
from moe_routing.conformance.run.session import check, in_process
from moe_routing.implementations import load_adapter

PAGE = Path(__file__).parents[2] / "docs" / "adapters.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the docs are not here")


def checked(folder: Path, old: str = "", new: str = "") -> tuple[str, list[str]]:
    pytest.importorskip("torch")
    (text,) = re.findall(r"```python\n(# my_block\.py\n.*?)```", PAGE.read_text(), re.DOTALL)
    assert old in text
    (folder / "my_block.py").write_text(text.replace(old, new))
    adapter = load_adapter(f"{folder / 'my_block.py'}:MyBlock")
    plan = Plan(clauses=select_clauses(["layer.shared-once"]), max_examples=5)
    (result,) = check(in_process({"my_block.py:MyBlock": adapter}, plan), plan).adapters
    (clause,) = result.clauses
    return clause.status, list(story_lines(result, clause))


def test_it_passes(tmp_path: Path) -> None:
    assert checked(tmp_path)[0] == "pass"


def test_its_story_is_that_of_the_page(tmp_path: Path) -> None:
    once = "output += swiglu(x, *(shared"
    status, lines = checked(tmp_path, once, once.replace("swiglu", "2 * swiglu"))
    assert status == "fail"
    shown = [line.strip() for line in PAGE.read_text().splitlines()]
    for line in lines[:-1]:
        assert line.strip() in shown, line
