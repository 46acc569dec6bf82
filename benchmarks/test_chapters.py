"""What a case of each chapter costs: to be drawn, to be answered by torch, and to be judged."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from bench_clocks import Benchmark, place

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.checking.outcome import evaluate
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.checking.search import drawn_cases
from moe_routing.conformance.checking.target import Target
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.implementations import load_adapter

OF_CHAPTERS = {
    "routing": "weights.match",
    "dispatch": "dispatch.sigmoid-with-bias",
    "shared experts": "shared-experts.singular",
    "permutation": "permutation.conserved",
    "experts": "experts.match",
    "layer": "layer.composes",
    "gradients of a router": "gradients.hidden",
    "gradients of experts": "experts.gradients",
    "shards": "shards.sum",
    "replay": "replay.forced",
    "padding": "padding.tokens",
}
"""The clause of each chapter that reads most of an answer."""

CASES = 40
TORCH = load_adapter("torch")


@cache
def target(chapter: str) -> Target:
    """Return the clause of a chapter on torch."""
    clause = CLAUSES[OF_CHAPTERS[chapter]]
    return Target(TORCH, clause, Plan(clauses=[clause]))


def drawn(chapter: str) -> list[AnyCase]:
    """Draw the cases of a clause, as a run of ``ci`` does."""
    of = target(chapter)
    return [*drawn_cases(of.clause, of.narrowed, suite_seed=0, max_examples=CASES)][:CASES]


cases = cache(drawn)


def answered(chapter: str) -> list[Any]:
    """Return trials of the cases, each of which has made its first call."""
    trials = [target(chapter).trial(case) for case in cases(chapter)]
    for each in trials:
        _ = each.native
    return trials


@pytest.mark.parametrize("chapter", OF_CHAPTERS)
@pytest.mark.parametrize("what", ["drawing", "torch's call, watched", "the judge"])
def test_forty_cases(benchmark: Benchmark, chapter: str, what: str) -> None:
    benchmark.group = chapter
    place(benchmark, f"{CASES} drawn cases of each chapter", chapter, what)
    clause = target(chapter).clause
    assert cases(chapter)
    if what == "drawing":
        assert benchmark.pedantic(drawn, args=(chapter,), rounds=3)
    elif what == "the judge":
        found = benchmark.pedantic(
            lambda trials: [evaluate(clause, each).broken for each in trials],
            setup=lambda: ((answered(chapter),), {}),
            rounds=3,
        )
        assert not any(found)
    else:
        assert benchmark.pedantic(answered, args=(chapter,), rounds=3)
