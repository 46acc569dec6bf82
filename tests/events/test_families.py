"""Families of events: a case is one member, and everything of it has to fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance import Case
from moe_routing.conformance.cases.kinds import facts_of
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.checking.target import Target
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.events import EVENTS, FAMILIES, members
from moe_routing.conformance.events.mixes import mix_of
from moe_routing.conformance.events.registry import ROWS, SMALL, thinned
from moe_routing.conformance.events.sizes import favouring_last
from moe_routing.conformance.generators.published import PUBLISHED
from moe_routing.implementations import Capabilities, load_adapter
from moe_routing.reference import PRESETS, Groups, Renormalize, RouterConfig, RouterInputs

WHOLE = Capabilities()


def call(rows: Any, top_k: int = 2, *, dtype: str = "float32", **config: Any) -> Case:
    rows = np.atleast_2d(np.asarray(rows, np.float32))
    inputs = RouterInputs.from_logits(rows, dtype=dtype, **config.pop("arrays", {}))
    return Case(
        config=RouterConfig(num_experts=rows.shape[1], top_k=top_k, **config), inputs=inputs
    )


def biased(bias: list[float]) -> dict[str, Any]:
    return {"score": "sigmoid", "arrays": {"selection_bias": bias}}


def seen(case: Case, family: str) -> set[str]:
    facts = facts_of(case, WHOLE)
    return {slug for slug in members(family) if EVENTS[slug].occurs(facts)}


def test_families_are_those_that_the_slugs_name() -> None:
    assert {event.family for event in EVENTS.values()} == {*FAMILIES, None}
    assert all(len(members(family)) > 1 for family in FAMILIES)


class TestFamilies:
    @pytest.mark.parametrize("slug", [*members("batch"), *members("mix"), *members("published")])
    def test_a_case_is_one_member_and_no_other(self, slug: str) -> None:
        case = EVENTS[slug].constructed(WHOLE)
        assert isinstance(case, Case)
        assert seen(case, slug.partition(":")[0]) == {slug}

    @pytest.mark.parametrize("slug", members("experts"))
    def test_so_many_experts_count_only_with_a_winner_in_the_tail(self, slug: str) -> None:
        experts = int(slug.partition(":")[2])
        past = 1 << (experts - 1).bit_length() - 1
        assert seen(call(np.arange(experts) == past, 1), "experts") == {slug}
        assert not seen(call(np.arange(experts) == past - 1, 1), "experts")
        assert not seen(call(np.arange(experts + 1) == past, 1), "experts")

    def test_published_sizes_count_only_together(self) -> None:
        sizes = next(each for each in PUBLISHED if each.key == (160, 6, (8, 3)))
        assert sizes.widths == (5120,)
        whole = call(favouring_last(160), 6, groups=Groups(count=8, kept=3))
        assert len(seen(whole, "published")) == 1
        assert not seen(call(favouring_last(160), 5, groups=Groups(count=8, kept=3)), "published")
        assert not seen(call(favouring_last(160), 6, groups=Groups(count=8, kept=4)), "published")
        assert not seen(call(np.arange(160) < 6, 6, groups=Groups(count=8, kept=3)), "published")

    @pytest.mark.parametrize("slug", members("winner"))
    def test_a_winner_counts_in_its_dtype_only(self, slug: str) -> None:
        least, dtype = slug.partition(":")[2].split("-")
        others = {"float32", "bfloat16", "float16"} - {dtype}
        above = np.arange(int(least) + 3) == int(least) + 1
        assert slug in seen(call(above, 1, dtype=dtype), "winner")
        assert not any(slug in seen(call(above, 1, dtype=other), "winner") for other in others)
        assert slug not in seen(call(above[1:], 1, dtype=dtype), "winner")


class TestPresets:
    @pytest.mark.parametrize("slug", members("preset"))
    def test_every_setting_counts(self, slug: str) -> None:
        case = EVENTS[slug].constructed(WHOLE)
        assert isinstance(case, Case)
        assert slug in seen(case, "preset")
        assert case.config == PRESETS[slug.partition(":")[2]].config
        scaled = replace(case.config, scale=case.config.scale + 1.0)
        assert not seen(replace(case, config=scaled), "preset")

    def test_the_place_of_the_bias_counts(self) -> None:
        case = EVENTS["preset:minimax_m2"].constructed(WHOLE)
        assert isinstance(case, Case)
        assert case.inputs.selection_bias_on == "block"
        moved = replace(case, inputs=replace(case.inputs, selection_bias_on="gate"))
        assert not seen(moved, "preset")


MIXES = {
    "mix:softmax": call(ROWS),
    "mix:softmax+scaled": call(ROWS, scale=2.5),
    "mix:softmax+groups": call(ROWS, groups=Groups(count=2, kept=1)),
    "mix:softmax+renormalized": call(ROWS, renormalize=Renormalize()),
    "mix:sigmoid+bias": call(ROWS, **biased([0.0, 0.0, 0.0, 1.0])),
}


@pytest.mark.parametrize("slug", MIXES)
def test_a_mix_is_what_is_switched_on(slug: str) -> None:
    assert mix_of(facts_of(MIXES[slug], WHOLE)) == slug


@pytest.mark.parametrize(
    "case",
    [call(ROWS, 1), call(ROWS, scale=0.0), call(np.zeros((0, 4))), call(ROWS, **biased([0.0] * 4))],
    ids=["K=1", "scale 0", "T=0", "zero bias"],
)
def test_what_hides_a_switch_is_no_mix(case: Case) -> None:
    assert mix_of(facts_of(case, WHOLE)) is None


def test_a_quick_run_has_a_few_of_a_large_family_spread_over_it() -> None:
    events = [EVENTS[slug] for slug in ("any-case", *members("shape"), *members("gradient-score"))]
    few = thinned(events, 4)
    sizes = [each for each in few if each.family == "shape"]
    assert len(sizes) == 4 < SMALL < len(members("shape"))
    assert sizes[-1] is EVENTS[members("shape")[-1]], "the largest is left out"
    assert [each for each in few if each not in sizes] == [
        each for each in events if each.family != "shape"
    ]
    assert thinned(events, len(events)) == events


def test_a_quick_run_needs_no_more_for_a_pass() -> None:
    clause = CLAUSES["weights.match"]
    target = Target(load_adapter("reference"), clause, Plan(clauses=[clause], series=4))
    assert len(target.witnesses) < len(clause.events) / 4
    assert Target(target.adapter, clause, Plan(clauses=[clause])).witnesses == clause.witnesses()
