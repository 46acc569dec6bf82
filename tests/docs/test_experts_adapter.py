"""The adapter of experts in docs/adapters.md: it passes, and its bugs are told by slot."""

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

WEIGHT = 'given["weights"][t, k] * '
ON_THE_INPUT = (
    ('given["hidden"][t]\n', 'given["hidden"][t] * given["weights"][t, k]\n'),
    (WEIGHT, ""),
)


def checked(folder: Path, clauses: str, *changes: tuple[str, str]) -> RunResult:
    pytest.importorskip("torch")
    (source,) = re.findall(r"```python\n(# one_by_one\.py\n.*?)```", PAGE.read_text(), re.DOTALL)
    for old, new in changes:
        assert old in source
        source = source.replace(old, new)
    (folder / "one_by_one.py").write_text(source)
    adapter = load_adapter(f"{folder / 'one_by_one.py'}:OneByOne")
    plan = Plan(clauses=select_clauses([clauses]), max_examples=20)
    return check(in_process({"one_by_one.py:OneByOne": adapter}, plan), plan)


def printed(command: str) -> list[str]:
    """The lines that the page shows under a command, without those that it leaves out."""
    _, _, after = PAGE.read_text().partition(f"    $ {command}\n")
    block = re.match(r"(?:    .*\n)+", after)
    assert block is not None
    return [line[4:] for line in block[0].splitlines() if line != "    ..."]


def test_it_passes(tmp_path: Path) -> None:
    result = checked(tmp_path, "experts.*")
    shown = printed("moe-routing check one_by_one.py:OneByOne --clause 'experts.*'")
    (adapter,) = result.adapters
    assert shown[1:] == [f"{adapter.name}: {counts(adapter)}"]
    assert result.exit_code == 0


BUGS = {
    "experts.weight-on-output": (ON_THE_INPUT, "as if the weight scaled the input"),
    "experts.match": (((WEIGHT, ""),), "as if no weight were applied"),
    "experts.absent": (
        (('given["weights"].nonzero()', '(given["weights"] * 0 + 1).nonzero()'),),
        "absent",
    ),
    "experts.slot-order": (
        (("e, x = ", "if k == 1:\n                continue\n            e, x = "),),
        "looks     as if slot 1 (expert",
    ),
}


@pytest.mark.parametrize("clause", BUGS)
def test_a_bug_is_told_by_token_slot_and_expert(clause: str, tmp_path: Path) -> None:
    changes, words = BUGS[clause]
    (adapter,) = checked(tmp_path, clause, *changes).adapters
    (result,) = adapter.clauses
    assert result.status == "fail"
    lines = [line.strip() for line in story_lines(adapter, result)]
    assert any(words in line for line in lines), lines
    assert any(line.startswith("token ") for line in lines), lines
    assert any("docs/spec/experts.md" in line for line in lines), lines


def test_the_story_on_the_page_is_the_story(tmp_path: Path) -> None:
    (adapter,) = checked(tmp_path, "experts.weight-on-output", *ON_THE_INPUT).adapters
    shown = printed("moe-routing check one_by_one.py:OneByOne --clause experts.weight-on-output")
    told = [f"  {line}" for line in story_lines(adapter, adapter.clauses[0])]
    assert shown[1:] == told[: len(shown) - 1]
