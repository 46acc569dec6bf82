"""The clauses that draw fewer cases than others, and the evidence for it."""

from __future__ import annotations

import re
from pathlib import Path

from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.clauses.shares import FEW, SHARES, share_of

ZOO = Path(__file__).parents[2] / "docs" / "zoo.md"
ENOUGH = 3
"""How many times the draws that its quickest clause took, in the middle of five seeds."""


def drawn_alone() -> dict[str, tuple[float, list[str]]]:
    """The mutants that no constructed case catches: the draws to a kill, and the clauses."""
    rows = [line.strip().strip("|").split("|") for line in ZOO.read_text().splitlines()]
    cells = [[cell.strip() for cell in row] for row in rows if len(row) == 7]
    return {
        row[0].strip("`"): (float(row[3]), re.findall(r"`([a-z-]+\.[a-z0-9-]+)`", row[6]))
        for row in cells
        if row[0].startswith("`") and row[4] != "yes"
    }


def test_they_are_clauses() -> None:
    assert not set(SHARES) - set(CLAUSES)


def test_a_mutant_that_only_drawn_cases_catch_has_enough_of_them() -> None:
    found = drawn_alone()
    assert len(found) > 20, "the page is not read any more"
    for mutant, (draws, clauses) in found.items():
        most = max(CLAUSES[clause].draws(100) for clause in clauses)
        assert draws * ENOUGH <= most, mutant


def test_a_short_run_draws_no_fewer() -> None:
    assert {share_of(id, 10) for id in CLAUSES} == {10}
    assert share_of("weights.scale", 40) == FEW == 12
    assert share_of("weights.scale", 100) == 12
    assert share_of("weights.scale", 400) == 50
    assert share_of("scores.match", 100) == 50
    assert share_of("weights.match", 100) == 100
