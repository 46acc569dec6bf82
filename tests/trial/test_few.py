"""Repeats: a batch of few tokens has the bounds, the facts and the verdict of any other."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance import Case
from moe_routing.conformance.cases.kinds import facts_of
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.events import EVENTS
from moe_routing.conformance.generators.construct import take_tokens
from moe_routing.conformance.judge import Answer, Bounds, Interval, judge
from moe_routing.conformance.judge.allowance import allowance_used
from moe_routing.conformance.trial.few import (
    LARGE,
    SpreadBounds,
    SpreadVerdict,
    repeats,
    unlike_rows,
)
from moe_routing.conformance.trial.memo import CaseMemo
from moe_routing.conformance.zoo import MUTANTS
from moe_routing.implementations import Capabilities, Claim, Numerics
from moe_routing.reference import Stages, route

WHOLE = Capabilities()
OF = ("sigmoid-of-256-in-8-groups-biased", "softmax-of-8", "sigmoid-of-896-biased")


def batch(name: str, tokens: int) -> Case:
    few = EVENTS[f"sizes:{name}"].constructed(WHOLE)
    assert isinstance(few, Case)
    return take_tokens(few, np.arange(tokens) * 3 % few.inputs.num_tokens)


def same(one: object, other: object) -> bool:
    if isinstance(one, Interval) and isinstance(other, Interval):
        return same(one.lo, other.lo) and same(one.hi, other.hi)
    return bool(np.array_equal(one, other, equal_nan=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OF)
def test_the_bounds_are_those_of_the_whole_batch(name: str) -> None:
    case = batch(name, 300)
    spread, whole = CaseMemo().bounds(case, Numerics()), facts_of(case, WHOLE)
    assert isinstance(spread, SpreadBounds)
    for field in fields(Stages):
        one, other = getattr(spread.reference, field.name), getattr(whole.reference, field.name)
        pairs = zip(one, other, strict=True) if field.name == "products" else [(one, other)]
        assert all(x is y or same(x, y) for x, y in pairs), field.name
    assert same(spread.logits.permitted, whole.logits.permitted)
    assert same(spread.from_reference.competing, whole.from_reference.competing)
    assert same(spread.judged, whole.judged)
    assert same(spread.only_reference, whole.only_reference)


@pytest.mark.parametrize("name", OF)
def test_events_are_read_off_the_few_as_off_the_whole_batch(name: str) -> None:
    case = batch(name, 300)
    spread, whole = CaseMemo().bounds(case, Numerics()), facts_of(case, WHOLE)
    assert isinstance(spread, SpreadBounds)
    for slug, event in EVENTS.items():
        if not slug.startswith("shared-"):
            assert event.occurs(spread.facts) == event.occurs(whole), slug


@pytest.mark.parametrize(
    "slug",
    [
        *("delta-decides", "norm-scale-decides"),
        *("fine-gate-beside-16-bits", "wide-gate-shows-in-weights"),
    ],
)
def test_an_event_that_makes_bounds_of_its_own_makes_them_of_the_few(slug: str) -> None:
    capabilities = Capabilities(claims=(Claim.whole(),))
    few = EVENTS[slug].constructed(capabilities)
    assert isinstance(few, Case)
    rows, most = few.inputs.num_tokens, LARGE // few.config.num_experts + 1
    case = take_tokens(few, np.arange(2 * max(rows, most)) % rows)
    spread = CaseMemo().bounds(case, Numerics())
    assert isinstance(spread, SpreadBounds)
    assert EVENTS[slug].occurs(spread.facts)


def test_tokens_that_differ_are_no_repeats() -> None:
    case = batch("sigmoid-of-896-biased", 61)
    assert repeats(case) is None
    assert repeats(take_tokens(case, [*range(61)] * 2)) is not None
    assert repeats(batch("softmax-of-8", 62)) is None, "a small call costs nothing"


def test_the_rows_to_judge_are_the_first_of_each_token_and_those_that_differ() -> None:
    which = np.array([1, 0, 1, 1, 0, 1])
    ids = np.array([[5], [4], [5], [6], [4], [6]])
    answer = Answer(weights=np.ones((6, 1)), expert_ids=ids)
    rows, like = unlike_rows(which, answer)
    assert (rows.tolist(), like.tolist()) == ([0, 1, 3], [0, 1, 0, 2, 1, 2])
    nan = replace(answer, weights=np.where(np.arange(6) == 4, np.nan, 1.0)[:, None])
    rows, like = unlike_rows(which, nan)
    assert (rows.tolist(), like.tolist()) == ([0, 1, 3, 4], [0, 1, 0, 2, 3, 2])


@pytest.mark.parametrize("logits", ["routed", "copy", "none"])
@pytest.mark.parametrize("name", OF)
def test_the_verdict_is_that_on_the_whole_batch(name: str, logits: Any) -> None:
    """Of right rows, wrong ones, and wrong ones of which each is another."""
    case = batch(name, 300)
    memo, rng = CaseMemo(), np.random.default_rng(0)
    spread, whole = memo.bounds(case, Numerics()), Bounds(case.config, case.inputs, Numerics())
    done = route(case.config, case.inputs)
    weights, ids = done.weights.copy(), done.expert_ids.copy()
    own = None if logits == "none" else whole.reference.logits.copy()
    weights[[7, 70, 133]] *= 1.5
    weights[80:90] *= rng.uniform(0.5, 2.0, (10, 1))
    ids[[5, 66]] = ids[[66, 5]]
    ids[140, 0] = ids[140, 1]
    if own is not None:
        own[[9, 200]] += 0.25
        own[210, 0] = np.nan
    answer = Answer(weights=weights, expert_ids=ids, logits=own, weights_dtype="float32")
    one, other = memo.verdict(spread, answer, logits), judge(whole, answer, logits=logits)
    assert isinstance(one, SpreadVerdict)
    assert len(one.part.judged) < 100
    for field in ("judged", "distinct", "in_range", "selection", "weights", "decided", "apart"):
        assert same(getattr(one, field), getattr(other, field)), field
    assert (one.logits is None) == (other.logits is None)
    assert one.logits is None or same(one.logits, other.logits)
    assert same(one.weight_bounds.permitted, other.weight_bounds.permitted)
    assert same(one.later.competing, other.later.competing)
    assert one.routed == other.routed
    assert allowance_used(one) == allowance_used(other)


def test_a_batch_whose_rows_are_all_answered_otherwise_is_judged_whole() -> None:
    case = batch("softmax-of-8", 300)
    memo, done = CaseMemo(), route(case.config, case.inputs)
    weights = done.weights * np.linspace(1.0, 2.0, 300)[:, None]
    answer = Answer(weights=weights, expert_ids=done.expert_ids)
    verdict = memo.verdict(memo.bounds(case, Numerics()), answer, "none")
    assert not isinstance(verdict, SpreadVerdict)
    assert not verdict.right


@pytest.mark.parametrize(
    "name", ["bias-lost-in-prefill", "rows-shift-at-8192-tokens", "bfloat16-logits-at-2048-tokens"]
)
def test_a_router_that_is_wrong_at_one_size_fails(name: str) -> None:
    clause = CLAUSES["invariance.batch-split"]
    slugs = {
        "bias-lost-in-prefill": "sizes:sigmoid-of-256-biased",
        "rows-shift-at-8192-tokens": "sizes:softmax-of-256",
        "bfloat16-logits-at-2048-tokens": "sizes:softmax-of-8",
    }
    one = replace(clause, events=(slugs[name],))
    plan = Plan(clauses=[one], max_examples=1, shrinks=False)
    result = check_clause(MUTANTS[name].adapter(), one, plan)
    assert result.status == "fail"
    assert result.case is not None
    assert len(result.case.inputs.hidden) in (64 + 1, 2048, 8192)
