"""The page on replaying: its trainer fails as shown, passes as fixed; its snippets run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from moe_routing.conformance import Plan, select_clauses
from moe_routing.conformance.report.text import story_lines
from moe_routing.conformance.run.session import check, in_process
from moe_routing.implementations import load_adapter

PAGE = Path(__file__).parents[2] / "docs" / "replaying.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the docs are not here")


def snippets() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def checked(folder: Path, text: str) -> Any:
    pytest.importorskip("torch")
    (folder / "my_trainer.py").write_text(text)
    adapter = load_adapter(f"{folder / 'my_trainer.py'}:MyTrainer")
    plan = Plan(clauses=select_clauses(["replay.*"]), max_examples=5)
    (result,) = check(in_process({"my_trainer.py:MyTrainer": adapter}, plan), plan).adapters
    return result


def test_its_trainer_fails_as_the_page_shows_it(tmp_path: Path) -> None:
    result = checked(tmp_path, snippets()[0])
    (failed,) = [each for each in result.clauses if each.id == "replay.absent-rows"]
    shown = [line.strip() for line in PAGE.read_text().splitlines()]
    for line in list(story_lines(result, failed))[:-1]:
        assert line.strip() in shown, line


def test_it_passes_with_the_line_of_the_page(tmp_path: Path) -> None:
    wrong = "weights = scores.gather(1, ids.clamp(min=0))"
    (fixed,) = re.findall(
        r"^    (weights = scores\.gather.*masked_fill.*)$", PAGE.read_text(), re.M
    )
    assert wrong in snippets()[0]
    result = checked(tmp_path, snippets()[0].replace(wrong, fixed))
    assert {each.status for each in result.clauses} == {"pass", "unsupported"}


def test_its_other_snippets_run(capsys: pytest.CaptureFixture[str]) -> None:
    for text in snippets()[1:]:
        exec(compile(text, str(PAGE), "exec"), {"__name__": "page"})
    assert capsys.readouterr().out.split("\n")[2] == " [-1 -1]"
