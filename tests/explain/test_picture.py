"""The picture of a case: which group won, where the cut fell, who sat on it; readable."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance import Case, save_case
from moe_routing.conformance.cli import main
from moe_routing.conformance.explain.picture import picture
from moe_routing.reference import Groups, RouterConfig, RouterInputs, SharedSlots

CASES = Path(__file__).parents[1] / "data" / "cases"
PLAIN = {"score": "identity", "weights_from": "softmax_of_selected"}


def case(logits: Any, *, bias: Any = None, **fields: Any) -> Case:
    given = {} if bias is None else {"selection_bias": np.array(bias)}
    inputs = RouterInputs.from_logits(np.array(logits, dtype=np.float32), **given)
    return Case(config=RouterConfig(num_experts=inputs.num_experts, **fields), inputs=inputs)


def drawn(subject: Case, *tokens: int) -> list[str]:
    lines = list(picture(subject, tokens or (0,)))
    assert max(map(len, lines)) <= 100, max(lines, key=len)
    assert not [line for line in lines if line != line.rstrip()]
    return lines


def above_and_below(lines: list[str], rule: str) -> tuple[list[int], list[int]]:
    """The first numbers of the rows above and below a cut."""
    (cut,) = [i for i, line in enumerate(lines) if line.strip().startswith(f"--- {rule}")]
    heads = [i for i, line in enumerate(lines[:cut]) if line.split()[:1] in (["expert"], ["group"])]
    rows = [line.replace("*", " ").split() for line in lines]
    end = next((i for i in range(cut, len(rows)) if not rows[i]), len(rows))
    return _numbers(rows[heads[-1] + 1 : cut]), _numbers(rows[cut + 1 : end])


def _numbers(rows: list[list[str]]) -> list[int]:
    return [int(row[0]) for row in rows if row[0].isdecimal() and "more," not in row]


def test_the_selected_experts_stand_above_the_cut_best_first() -> None:
    lines = drawn(case([[1.0, 4.0, 2.0, 3.0]], top_k=2, **PLAIN))
    assert above_and_below(lines, "the cut: 2 of 4 experts") == ([1, 3], [2, 0])
    (best,) = [line for line in lines if line.startswith(" *     1")]
    assert best.split()[2:5] == ["4", "4", "4"], "logit, score, what it competes with"
    assert best.endswith("#" * 12)


def test_the_kept_groups_stand_above_theirs() -> None:
    subject = case(
        [[0.0, 1.0, 5.0, 5.0, 3.0, 3.0]], top_k=1, groups=Groups(count=3, kept=1), **PLAIN
    )
    lines = drawn(subject)
    assert above_and_below(lines, "the cut: 1 of 3 groups are kept") == ([1], [2, 0])
    assert any("2..3" in line for line in lines)
    assert sum("group is out" in line for line in lines) == 4


def test_who_sits_on_the_cut_is_said() -> None:
    lines = drawn(case([[1.0, 2.0, 2.0, 3.0]], top_k=2, **PLAIN))
    assert [line.split()[0] for line in lines if line.endswith("on the cut")] == ["*", "2"]
    assert not any("on the cut" in line for line in drawn(case([[1.0, 2.0]], top_k=1, **PLAIN)))


def test_a_tie_of_groups_is_said() -> None:
    subject = case([[2.0, 1.0, 1.0, 2.0]], top_k=1, groups=Groups(count=2, kept=1), **PLAIN)
    assert sum(line.endswith("on the cut") for line in drawn(subject)) == 2


def test_the_bias_and_the_weights_are_shown() -> None:
    lines = drawn(case([[0.0, 0.0]], bias=[0.25, 7.0], top_k=1, score="sigmoid"))
    (row,) = [line for line in lines if line.startswith(" *")]
    assert row.split()[1:7] == ["1", "0", "0.5", "7", "7.5", "0.5"]


def test_of_many_experts_those_near_the_cut_are_drawn() -> None:
    lines = drawn(case(np.arange(256.0)[None] / 16.0, top_k=8))
    assert above_and_below(lines, "the cut: 8 of 256 experts")[0] == list(range(255, 247, -1))
    assert "     ... 244 more" in lines
    assert len(lines) < 30


def test_of_many_selected_experts_both_sides_of_the_cut_are_drawn() -> None:
    lines = drawn(case(np.arange(256.0)[None] / 16.0, top_k=64))
    above, below = above_and_below(lines, "the cut: 64 of 256 experts")
    assert (above[-1], below[0]) == (192, 191)
    assert len(lines) < 30


def test_of_many_groups_both_sides_of_the_cut_are_drawn() -> None:
    subject = case(
        np.arange(256.0)[None] / 16.0, top_k=2, groups=Groups(count=64, kept=30), **PLAIN
    )
    lines = drawn(subject)
    above, below = above_and_below(lines, "the cut: 30 of 64 groups are kept")
    assert (above[-1], below[0]) == (34, 33)
    assert len(lines) < 50


def test_shared_experts_are_drawn_below_in_slots_of_their_own() -> None:
    subject = case([[1.0, 2.0, 0.5]], top_k=1, shared_slots=SharedSlots(count=2, weight=0.4))
    lines = drawn(subject)
    at = next(i for i, line in enumerate(lines) if "--- shared experts, in slots" in line)
    assert [line.split() for line in lines[at + 1 :]] == [["*", "3", "0.4"], ["*", "4", "0.4"]]
    (head,) = [line for line in lines if line.endswith(" weight")]
    assert len(lines[at + 1]) == len(head)
    assert "--- the cut: 1 of 3 experts" in "\n".join(lines)
    many = drawn(case([[1.0, 2.0]], top_k=1, shared_slots=SharedSlots(count=20)))
    assert many[-1].split() == ["...", "8", "more"]


@pytest.mark.parametrize("path", sorted(CASES.glob("*.json")), ids=lambda path: path.stem)
def test_every_stored_case_can_be_explained_or_says_why_not(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["explain", str(path)])
    said = capsys.readouterr()
    assert code == (2 if path.stem.startswith("shared") else 0)
    assert "Traceback" not in said.out + said.err
    if path.stem.startswith("nonsense"):
        assert "nothing to draw, since the reference refuses the call: " in said.out


def test_a_case_of_more_shared_slots_than_there_can_be_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "case.json"
    save_case(case([[1.0, 2.0]], top_k=1, shared_slots=SharedSlots()), path)
    path.write_text(re.sub(r'("count": ?)1\b', rf"\g<1>{2**50}", path.read_text()))
    code = main(["explain", str(path)])
    said = " ".join("".join(capsys.readouterr()).split())
    assert f"Expected SharedSlots.count <= 256 but got {2**50}" in said
    assert (code, "Traceback" in said) == (0, False)


def test_a_token_that_is_not_there_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_case(case([[1.0, 2.0]], top_k=1), tmp_path / "case.json")
    assert main(["explain", f"{tmp_path}/case.json", "--token=1"]) == 2
    assert "--token 1 is out of range: " in capsys.readouterr().err
    assert main(["explain", f"{tmp_path}/case.json", "--token=0"]) == 0


def test_undefined_scores_are_not_drawn() -> None:
    lines = drawn(case([[np.nan] * 3], top_k=2))
    assert lines[-1] == "  its scores are undefined: any distinct experts are right"
