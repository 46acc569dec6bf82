"""The adapter of a permutation in docs/adapters.md: it passes, and its bugs are told by place."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moe_routing.conformance import Plan, select_clauses
from moe_routing.conformance.checking.results import RunResult
from moe_routing.conformance.checking.scope import untried_methods
from moe_routing.conformance.report.text import counts, notes, story_lines
from moe_routing.conformance.run.session import check, in_process
from moe_routing.implementations import Capabilities, load_adapter

PAGE = Path(__file__).parents[2] / "docs" / "adapters.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the docs are not here")


def checked(folder: Path, *changes: tuple[str, str]) -> RunResult:
    (source,) = re.findall(r"```python\n(# my_sort\.py\n.*?)```", PAGE.read_text(), re.DOTALL)
    for old, new in changes:
        assert old in source
        source = source.replace(old, new)
    (folder / "my_sort.py").write_text(source)
    adapter = load_adapter(f"{folder / 'my_sort.py'}:MySort")
    plan = Plan(clauses=select_clauses([]), max_examples=20)
    return check(in_process({"my_sort.py:MySort": adapter}, plan), plan)


def said(result: RunResult) -> list[str]:
    (adapter,) = result.adapters
    return [f"{adapter.name}: {counts(adapter)}", *notes(result)]


def printed(command: str) -> list[str]:
    """The lines that the page shows under a command, without those that it leaves out."""
    _, _, after = PAGE.read_text().partition(f"    $ {command}\n")
    block = re.match(r"(?:    .*\n)+", after)
    assert block is not None
    return [line[4:] for line in block[0].splitlines() if line != "    ..."]


def test_it_passes_and_says_what_was_skipped(tmp_path: Path) -> None:
    result = checked(tmp_path)
    assert result.exit_code == 0
    shown = printed("moe-routing check my_sort.py:MySort --clause 'permutation.*'")
    assert shown[0] == "checking my_sort.py:MySort: 17 clauses"
    assert shown[1:] == said(result)[:1]
    held = [each for each in select_clauses([]) if each.promise is None]
    others = sum(each.method != "permute" and "ranks" not in each.method for each in held)
    lacks = said(result)[1]
    assert lacks.startswith("my-sort has none of 12 methods (route, dispatch, shared_experts, ...)")
    assert lacks.endswith(f": {others} clauses skipped")
    (adapter,) = result.adapters
    assert {each.chapter for each in adapter.clauses} == {"permutation"}
    assert adapter.summary()["in_spec"] == 17


CHANGES: dict[str, tuple[tuple[str, str], ...]] = {
    "grouped": (("ends=np.cumsum(counts)", "ends=np.cumsum(counts) - counts"),),
    "counts": (("ids, minlength", "routes.expert_ids[:, 0], minlength"),),
    "stable": (('np.argsort(ids, kind="stable")', "np.lexsort((-np.arange(ids.size), ids))"),),
    "conserved": (('np.argsort(ids, kind="stable")', 'np.argsort(ids, kind="stable") // 2'),),
}


@pytest.mark.parametrize("clause", CHANGES)
def test_a_bug_is_red_and_its_story_names_the_place(clause: str, tmp_path: Path) -> None:
    (adapter,) = checked(tmp_path, *CHANGES[clause]).adapters
    found = {each.id: each for each in adapter.clauses}[f"permutation.{clause}"]
    assert found.status == "fail"
    story = "\n".join(story_lines(adapter, found))
    wanted: dict[str, Any] = {
        "counts": ("counts[", "expert", "PERM-4"),
        "grouped": ("row ", "token ", "slot ", "expert", "PERM-3"),
    }
    for word in wanted.get(clause, ("row", "token ", "slot ", "(route ", "PERM-")):
        assert word in story, story
    assert len(max(story.splitlines(), key=len)) < 110


class Routes:
    """It routes, if badly, and does nothing else."""

    name = "routes"

    def capabilities(self) -> Capabilities:
        return Capabilities()

    def route(self, config: Any, inputs: Any) -> None:
        return None


def test_one_without_permute_has_it_skipped_keeps_its_score_and_says_so() -> None:
    plan = Plan(clauses=select_clauses(["permutation.*", "selection.distinct"]), max_examples=1)
    result = check(in_process({"routes": Routes()}, plan), plan)
    (adapter,) = result.adapters
    assert [each.id for each in adapter.clauses] == ["selection.distinct"]
    assert adapter.untried == {"permute": 17}
    untried = untried_methods(Routes())
    held = [each for each in select_clauses([]) if each.promise is None]
    assert adapter.in_spec == sum(each.method not in untried for each in held)
    words = "no method permute: 17 clauses of permutation skipped"
    assert notes(result) == [f"routes has {words}"]
    assert notes(replace(result, adapters=(adapter, adapter))) == [f"2 adapters have {words}"]


def test_the_story_on_the_page_is_the_story(tmp_path: Path) -> None:
    (adapter,) = checked(tmp_path, *CHANGES["grouped"]).adapters
    found = {each.id: each for each in adapter.clauses}["permutation.grouped"]
    shown = printed("moe-routing check my_sort.py:MySort --clause permutation.grouped")
    told = [f"  {line}" for line in story_lines(adapter, found)]
    assert shown[1:] == told[: len(shown) - 1]
