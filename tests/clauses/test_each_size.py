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

SMOKE = PROFILES["smoke"].max_examples


def last_expert_lost(w: Work) -> Array:
    chosen = expert_ids(w)
    return np.where(chosen == w.config.num_experts - 1, 0, chosen)


def first_weight_a_thousandth_off(w: Work) -> Array:
    found = np.array(scaled(w))
    found[:, :1] *= np.float32(1.001)
    return found


@pytest.mark.parametrize(
    ("clause", "stage", "wrong"),
    [
        ("selection.valid-top-k", "expert_ids", last_expert_lost),
        ("weights.match", "scaled", first_weight_a_thousandth_off),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_router_wrong_at_any_one_size_is_wrong_in_its_case(
    clause: str, stage: str, wrong: Stage
) -> None:
    """E from 2 to 130, as 37, and K from 1 to 40, as 11: no list has them all."""
    router, checked = StagedRouter("wrong", {stage: wrong}, WHOLE), CLAUSES[clause]
    seen = [
        case.config
        for case in EVENTS["each-size"].checked(checked.narrowed(WHOLE))
        if evaluate(checked, trial_of(router, case, "route", memo=CaseMemo())).broken
    ]
    assert [config.num_experts for config in seen] == [*range(2, 131)]
    assert {config.top_k for config in seen} == {*range(1, 41)}


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
