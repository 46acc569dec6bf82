"""The adapter of gradients in docs/adapters.md: what it gets wrong is told as the page shows it."""

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

DETACHED = ".sum(-1, keepdim=True).detach()"


def source() -> str:
    found = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (page,) = [each for each in found if "gradients = torch_gradients" in each]
    return str(page)


def checked(folder: Path, text: str) -> tuple[str, list[str]]:
    (folder / "my_adapter.py").write_text(text)
    adapter = load_adapter(f"{folder / 'my_adapter.py'}:MyAdapter")
    plan = Plan(clauses=select_clauses(["gradients.hidden"]), max_examples=5)
    (result,) = check(in_process({"my_adapter.py:MyAdapter": adapter}, plan), plan).adapters
    (clause,) = result.clauses
    return clause.status, list(story_lines(result, clause))


def test_its_story_is_that_of_the_page(tmp_path: Path) -> None:
    shown = [line.strip() for line in PAGE.read_text().splitlines()]
    status, lines = checked(tmp_path, source())
    assert status == "fail"
    for line in lines[:-1]:
        assert line.strip() in shown, line


def test_a_norm_with_its_gradient_passes(tmp_path: Path) -> None:
    text = source()
    assert DETACHED in text
    right = text.replace(DETACHED, DETACHED.removesuffix(".detach()"))
    assert checked(tmp_path, right)[0] == "pass"
