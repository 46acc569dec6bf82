"""The adapter of a capacity in docs/adapters.md: it passes, and its bug is told as on the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from moe_routing.conformance import Plan, select_clauses
from moe_routing.conformance.checking.results import RunResult
from moe_routing.conformance.report.text import counts, story_lines
from moe_routing.conformance.run.session import check, in_process
from moe_routing.implementations import load_adapter

PAGE = Path(__file__).parents[2] / "docs" / "adapters.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the docs are not here")


def checked(folder: Path, clause: str, old: str = "", new: str = "") -> RunResult:
    (source,) = re.findall(r"```python\n(# my_capacity\.py\n.*?)```", PAGE.read_text(), re.DOTALL)
    assert old in source
    (folder / "my_capacity.py").write_text(source.replace(old, new) if old else source)
    adapter = load_adapter(f"{folder / 'my_capacity.py'}:MyCapacity")
    plan = Plan(clauses=select_clauses([clause]), max_examples=20)
    return check(in_process({"my_capacity.py:MyCapacity": adapter}, plan), plan)


def printed(command: str) -> list[str]:
    """The lines that the page shows under a command, without those that it leaves out."""
    _, _, after = PAGE.read_text().partition(f"    $ {command}\n")
    block = re.match(r"(?:    .*\n)+", after)
    assert block is not None
    return [line[4:] for line in block[0].splitlines() if line != "    ..."]


def test_it_passes_and_says_so_as_on_the_page(tmp_path: Path) -> None:
    result = checked(tmp_path, "capacity.*")
    assert result.exit_code == 0
    shown = printed("moe-routing check my_capacity.py:MyCapacity --clause 'capacity.*'")
    (adapter,) = result.adapters
    assert shown[1:] == [f"{adapter.name}: {counts(adapter)}"]
    assert shown[0].endswith(f"{len(adapter.clauses)} clauses")


def test_the_story_on_the_page_is_the_story(tmp_path: Path) -> None:
    result = checked(tmp_path, "capacity.none-needlessly", "<= config", "< config")
    (adapter,) = result.adapters
    (found,) = adapter.clauses
    command = "moe-routing check my_capacity.py:MyCapacity --clause capacity.none-needlessly"
    shown, told = printed(command), list(story_lines(adapter, found))
    assert [line.strip() for line in shown[1:]] == [line.strip() for line in told[: len(shown) - 1]]
