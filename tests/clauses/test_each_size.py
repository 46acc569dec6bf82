"""One size that is wrong beside all that are listed: it is found, on smoke as well."""

from __future__ import annotations

import numpy as np
import pytest

from moe_routing.conformance.cases.kinds import trial_of
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.outcome import evaluate
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.checking.profiles import PROFILES
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.events import EVENTS
from moe_routing.conformance.trial.memo import CaseMemo
from moe_routing.conformance.zoo import MUTANTS
from moe_routing.conformance.zoo.residents import WHOLE
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.router import StagedRouter
from moe_routing.conformance.zoo.router.stages import expert_ids, scaled
from moe_routing.conformance.zoo.router.work import Stage, Work
from moe_routing.reference import RouterConfig

SMOKE = PROFILES["smoke"].max_examples


def last_expert_lost(w: Work) -> Array:
    chosen = expert_ids(w)
    return np.where(chosen == w.config.num_experts - 1, 0, chosen)


def first_weight_a_thousandth_off(w: Work) -> Array:
    found = np.array(scaled(w))
    found[:, :1] *= np.float32(1.001)
    return found


def test_a_router_that_loses_the_last_expert_at_one_size_is_wrong_in_its_case() -> None:
    """E from 2 to 130, as 37: no list has them all."""
    seen = _wrong_in("selection.valid-top-k", "each-size", {"expert_ids": last_expert_lost})
    assert [config.num_experts for config in seen] == [*range(2, 131)]
    assert {config.top_k for config in seen} == {*range(1, 41)}


def test_a_router_whose_weight_is_off_at_one_top_k_is_wrong_in_its_case() -> None:
    """K from 1 to 40, as 11."""
    seen = _wrong_in("weights.match", "each-top-k", {"scaled": first_weight_a_thousandth_off})
    assert sorted(config.top_k for config in seen) == [*range(1, 41)]
    assert all(config.num_experts > config.top_k for config in seen)


def _wrong_in(clause: str, event: str, stages: dict[str, Stage]) -> list[RouterConfig]:
    router, checked = StagedRouter("wrong", stages, WHOLE), CLAUSES[clause]
    return [
        case.config
        for case in EVENTS[event].checked(checked.narrowed(WHOLE))
        if evaluate(checked, trial_of(router, case, "route", memo=CaseMemo())).broken
    ]


@pytest.mark.parametrize(
    ("mutant", "clause"),
    [
        ("bias-lost-in-prefill", "selection.bias-steers"),
        ("groups-ignored-from-512-tokens", "groups.kept-only"),
        ("bfloat16-logits-of-few-tokens-at-896", "selection.valid-top-k"),
        ("bfloat16-logits-of-few-tokens-at-896", "weights.match"),
    ],
)
def test_smoke_finds_what_is_wrong_at_large_sizes_alone(mutant: str, clause: str) -> None:
    router, checked = MUTANTS[mutant].adapter(), CLAUSES[clause]
    plan = Plan(clauses=(checked,), max_examples=SMOKE, shrinks=False)
    assert check_clause(router, checked, plan).status == "fail"
