"""Routers wrong in 16 bits by a few per cent, or by one slot of many: each is caught."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import pytest

from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.clauses import select_clauses
from moe_routing.conformance.zoo import HONEST
from moe_routing.conformance.zoo.honest.sixteen_bits import narrow
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.router import StagedRouter
from moe_routing.conformance.zoo.router.work import Stage, Work
from moe_routing.implementations import Capabilities, Claim

SEEDS = range(5)
PLAIN = Capabilities(claims=(Claim(scores_dtype=("input",)),))
ROUTED = replace(PLAIN, logits="routed")
EAGER = HONEST["eager-16-bit"].stages


def one_slot_off(slot: int, by: float, dtype: str) -> dict[str, Stage]:
    """Scale the weight in one slot, where scores are in 16 bits."""

    def weights(w: Work) -> Array:
        wrong = EAGER["weights"](w).copy()
        if narrow(w) is not None and w.inputs.dtype == dtype and wrong.size:
            wrong[:, slot] *= np.float32(1 + by)
        return wrong

    return {**EAGER, "weights": weights}


def last_slot_missing(top_ks: Collection[int]) -> dict[str, Stage]:
    """Leave the last slot out of the norm."""

    def renormalized(w: Work) -> Array:
        if narrow(w) is None or w.config.renormalize is None or w.config.top_k not in top_ks:
            return EAGER["renormalized"](w)
        rule, kept = w.config.renormalize, np.abs(w.gathered[:, :-1])
        norm = (kept**rule.order).sum(axis=1, keepdims=True) ** (1 / rule.order)
        return w.gathered / np.maximum(norm + rule.eps, rule.floor).astype(np.float32)

    return {**EAGER, "renormalized": renormalized}


MUTANTS = {
    "first-8%-high": (one_slot_off(0, 0.08, "bfloat16"), "weights.match"),
    "last-8%-low": (one_slot_off(-1, -0.08, "bfloat16"), "weights.match"),
    "first-1%-high-in-float16": (one_slot_off(0, 0.01, "float16"), "weights.match"),
    "one-of-16-missing": (last_slot_missing({16}), "weights.sum"),
    "one-of-32-missing": (last_slot_missing({32}), "weights.sum"),
    "sum-over-k-less-1": (last_slot_missing(range(2, 4096)), "weights.match"),
}


@pytest.mark.parametrize("name", MUTANTS)
@pytest.mark.parametrize("claims", [PLAIN, ROUTED], ids=["interval", "routed"])
def test_a_router_that_is_wrong_in_16_bits_is_caught_on_every_seed(
    name: str, claims: Capabilities
) -> None:
    stages, clause = MUTANTS[name]
    if claims is PLAIN:
        stages = {key: stage for key, stage in stages.items() if key != "reported_logits"}
    for seed in SEEDS:
        plan = Plan(clauses=select_clauses([clause]), seed=seed, shrinks=False)
        found = check_clause(StagedRouter(name, stages, claims), plan.clauses[0], plan)
        assert found.status == "fail", f"{name} passes {clause} on seed {seed}: {found.message}"
