"""The story of a wrong gradient: where, what came back, what is permitted, what is missing."""

from __future__ import annotations

import pytest

from moe_routing.conformance import Plan, select_clauses
from moe_routing.conformance.report.text import story_lines
from moe_routing.conformance.run.session import check, in_process
from moe_routing.conformance.zoo import MUTANTS


def story(mutant: str, clause: str) -> list[str]:
    plan = Plan(clauses=select_clauses([f"gradients.{clause}"]), max_examples=20)
    (adapter,) = check(in_process({mutant: MUTANTS[mutant].adapter()}, plan), plan).adapters
    return list(story_lines(adapter, adapter.clauses[0]))


MISSING = {
    "norm-detached": ("logits", "the norm's own gradient: the weights were divided by a constant"),
    "signs-swapped": ("logits", "the sign: it is the negative of what is due"),
    "root-of-softplus-not-halved": ("logits", "twice as much as is due"),
    "scale-missing-in-backward": ("logits", "scale=2.5 is missing"),
    "weights-detached": ("logits", "0: nothing came back"),
    "hidden-gets-nothing": ("hidden", "None: detached from its graph"),
    "exponential-overflows-in-backward": ("saturated", "NaN: an overflow, or 0 times infinity"),
    "expert-scale-missing-in-backward": ("logits", "each expert's own scale is missing"),
}


@pytest.mark.parametrize("mutant", MISSING)
def test_it_says_which_factor_is_missing(mutant: str) -> None:
    clause, words = MISSING[mutant]
    lines = story(mutant, clause)
    assert any(words in line for line in lines), "\n".join(lines)
    assert lines[0].startswith("the gradient of ")
    assert max(map(len, lines)) < 110


def test_it_lists_the_experts_of_the_token_with_what_is_due() -> None:
    lines = story("norm-detached", "logits")
    (head,) = [n for n, line in enumerate(lines) if line.lstrip().startswith("experts ")]
    assert lines[head].split()[:5] == ["experts", "expert", "logit", "weight", "G"]
    assert "*" in lines[head + 1]
    assert ", due [" in lines[head + 1]


def test_a_gradient_that_is_not_linear_shows_both_calls() -> None:
    lines = story("gradient-clipped", "linear")
    assert "for twice the cotangent: not twice as much" in lines[0]
