"""The grouped product of docs/tutorial.md: right, and red with each bug that the page names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from moe_routing.conformance import Plan, select_clauses
from moe_routing.conformance.checking.results import ClauseResult
from moe_routing.conformance.report.text import story_lines
from moe_routing.conformance.run.session import check, in_process
from moe_routing.implementations import load_adapter

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the docs are not here")
pytest.importorskip("torch")

ALL_ROWS = "torch.arange(len(x))"
BUGS: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "weights on the input": (
        "weight-on-output",
        (
            ("[order // inputs.top_k]\n", "[order // inputs.top_k] * weights[order, None]\n"),
            ("rows * weight)", "rows)"),
        ),
    ),
    "an unchosen expert's NaN leaks": (
        "unchosen",
        (
            ("x[start:end] @ gate", "x @ gate"),
            ("x[start:end] @ up", "x @ up"),
            (
                "rows[start:end] = inner @ down",
                f"rows += inner @ down * (({ALL_ROWS} >= start) & ({ALL_ROWS} < end))[:, None]",
            ),
        ),
    ),
    "offsets inclusive where exclusive is due": (
        "match",
        (("zip([0, *ends], ends)", "zip(ends, [*ends[1:], len(x)])"),),
    ),
}
"""Each bug: the clause that finds it, and what is changed."""


def result(folder: Path, clause: str, *changes: tuple[str, str]) -> ClauseResult:
    (source,) = re.findall(r"```python\n(# my_gemm\.py\n.*?)```", PAGE.read_text(), re.DOTALL)
    for old, new in changes:
        assert old in source, old
        source = source.replace(old, new)
    (folder / "my_gemm.py").write_text(source)
    adapter = load_adapter(f"{folder / 'my_gemm.py'}:MyGemm")
    plan = Plan(clauses=select_clauses([f"experts.{clause}"]), max_examples=20)
    (found,) = check(in_process({"my_gemm.py:MyGemm": adapter}, plan), plan).adapters
    (only,) = found.clauses
    if only.status == "fail":
        told = "\n".join(story_lines(found, only))
        for word in ("token 0", "slot", "expert", "row", "rule", "EXP-"):
            assert word in told, told
    return only


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_is_red_and_its_story_names_the_token_the_slot_and_the_rule(
    bug: str, tmp_path: Path
) -> None:
    clause, changes = BUGS[bug]
    assert result(tmp_path, clause).status == "pass"
    red = result(tmp_path, clause, *changes)
    assert red.status == "fail", bug
    assert red.failure is not None
    assert any("looks     as if" in line for line in red.failure.details)
