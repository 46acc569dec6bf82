"""A token as values: complete, plain, and with a cut that means what it says."""

from __future__ import annotations

import pickle
from itertools import combinations

import numpy as np
import pytest

from moe_routing.conformance.explain.failure import first_failure
from moe_routing.conformance.explain.token_view import token_view
from moe_routing.conformance.judge import Answer, Bounds, Verdict, judge, may_select
from moe_routing.implementations import Numerics
from moe_routing.reference import Groups, RouterConfig, RouterInputs, route


def verdict_on(config: RouterConfig, logits: object, ids: object = None, **more: object) -> Verdict:
    """The verdict on the reference's answer, or on ``ids`` with uniform weights."""
    inputs = RouterInputs.from_logits(np.array(logits, dtype=np.float32), **more)
    right = route(config, inputs)
    given = right.expert_ids if ids is None else np.array(ids)
    weights = right.weights if ids is None else np.full(given.shape, 1.0 / config.top_k)
    answer = Answer(weights=weights, expert_ids=given, logits=right.logits)
    return judge(Bounds(config, inputs, Numerics()), answer, logits="routed")


def test_shows_what_was_answered_and_what_was_due() -> None:
    view = token_view(verdict_on(RouterConfig(num_experts=4, top_k=1), [[1, 5, 3, 2]], [[2]]), 0)
    assert [(e.id, e.answered, e.due) for e in view.experts] == [
        (1, False, True),
        (2, True, False),
        (3, False, False),
        (0, False, False),
    ], "best first"
    assert view.due == (1,)
    assert view.hidden == 0
    (slot,) = view.slots
    assert (slot.expert, slot.weight, slot.right) == (2, 1.0, False)
    lo, hi = slot.permitted
    assert lo < np.exp(-2) / (1 + np.exp(-2) + np.exp(-3) + np.exp(-4)) < hi


def test_keeps_the_chosen_and_the_best_of_many_experts() -> None:
    logits = np.arange(64.0)[None]
    verdict = verdict_on(RouterConfig(num_experts=64, top_k=2), logits, [[0, 63]])
    view = token_view(verdict, 0)
    assert [e.id for e in view.experts] == [*range(63, 52, -1), 0]
    assert [e.rank for e in view.experts] == [*range(11), 63]
    assert view.hidden == 52


def test_keeps_the_best_that_was_not_due_next_to_many_that_were() -> None:
    verdict = verdict_on(RouterConfig(num_experts=64, top_k=20), np.arange(64.0)[None])
    assert [e.id for e in token_view(verdict, 0).experts] == [*range(63, 42, -1)]


def test_lists_the_groups_and_which_are_kept() -> None:
    config = RouterConfig(num_experts=4, top_k=1, groups=Groups(count=2, kept=1, top=2))
    view = token_view(verdict_on(config, [[9, 0, 1, 2]]), 0)
    assert [(g.id, g.kept) for g in view.groups] == [(0, True), (1, False)]
    assert {e.id: (e.group, e.kept) for e in view.experts} == {
        0: (0, True),
        1: (0, True),
        2: (1, False),
        3: (1, False),
    }


def test_an_id_that_is_no_expert_has_no_permitted_weight() -> None:
    view = token_view(verdict_on(RouterConfig(num_experts=2, top_k=1), [[1, 2]], [[7]]), 0)
    assert [(s.expert, s.permitted) for s in view.slots] == [(7, None)]


def test_undefined_scores_have_no_cut() -> None:
    config = RouterConfig(num_experts=2, top_k=1)
    inputs = RouterInputs(hidden=[[np.nan, 0.0]], gate_weight=[[1, 0], [0, 1]])
    answer = Answer(weights=np.ones((1, 1)), expert_ids=np.zeros((1, 1), dtype=np.int64))
    view = token_view(judge(Bounds(config, inputs, Numerics()), answer), 0)
    assert (view.judged, view.cut) == (False, None)


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_an_expert_can_be_selected_just_where_its_band_reaches_the_cut(top_k: int) -> None:
    rng = np.random.default_rng(top_k)
    config = RouterConfig(num_experts=4, top_k=top_k, score="sigmoid")
    for _ in range(40):
        near = 1.0 + rng.integers(-2, 3, 4) * 2.0**-22
        verdict = verdict_on(config, [near])
        view, competing = token_view(verdict, 0), verdict.later.competing
        possible = set()
        for chosen in combinations(range(4), top_k):
            mask = np.isin(np.arange(4), chosen)[None]
            if may_select(competing, mask, None, verdict.later.group_format)[0]:
                possible |= set(chosen)
        assert {e.id for e in view.experts if e.competing[1] >= view.cut} == possible


def test_is_plain_and_the_same_when_sent_elsewhere() -> None:
    verdict = verdict_on(RouterConfig(num_experts=3, top_k=2), [[1, 5, 3]], [[2, 0]])
    failure = first_failure(verdict, "selection")
    assert failure is not None
    assert failure.view == token_view(verdict, 0)
    assert pickle.loads(pickle.dumps(failure)) == failure
