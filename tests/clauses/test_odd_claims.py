"""Odd claims: whatever a backend claims, all its calls are claimed, and some can be made."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from nightly import SERIES, nightly

from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.generators.choices import Focus, choose_case
from moe_routing.implementations import ANY, Capabilities, Claim, GroupRule, Limits, load_adapter
from moe_routing.reference import Renormalize, RouterConfig, check_inputs

FINE = ("pass", "unsupported")
SOME = ("score", "weights_from", "selection_bias", "logits_dtype", "scores_dtype", "weights_dtype")
EITHER = ("logit_softcap", "logit_multiplier", "input_norm", "gate_bias", "gate_delta")
OFFERED: dict[str, list[Any]] = {
    **{axis: [(False,), (True,), (False, True)] for axis in (*EITHER, "per_expert_scale")},
    "expert_table": [(False,), (False, True), (True,)],
    "top_k": [ANY, (1,), (8,), (4, 6), range(2, 100), range(1, 20, 3), (17,)],
    "groups": [
        *[(None,), (None, GroupRule()), (GroupRule(top=(1,), fill=(0.0,)),)],
        (None, GroupRule(top=("K // kept", 1))),
        (GroupRule(top=("K / kept",)),),
    ],
    "renormalize": [(None,), ANY, (Renormalize(),), (None, Renormalize(eps=1e-20))],
    "scale": [ANY, (1.0,), (1.0, 0.5)],
}
SIZES = {
    "max_experts": (None, None, 8, 20, 256),
    "max_top_k": (None, None, 8),
    "max_tokens": (None, None, 1, 7),
    "experts_multiple_of": (1, 1, 3, 4, 5, 8),
    "min_tokens": (0, 0, 0, 2, 5),
    "experts": (ANY, ANY, ANY, (2, 8, 16, 32, 64), range(8, 257, 24), (6, 96)),
    "top_k": (ANY, ANY, ANY, (1, 2, 4, 8), range(2, sys.maxsize, 2)),
    "max_groups": (None, None, 1, 4, 8),
    "max_kept_groups": (None, None, 1, 4),
    "min_group_size": (1, 1, 2, 5),
    "max_group_size": (None, None, 8, 32),
    "max_kept_experts": (None, None, 12, 128),
}


OTHERS = ("permute", "balance", "drop", "experts", "shard")
"""Methods whose calls depend on little that is claimed here: on one of two claims is enough."""


SEEDS = range(nightly(3, 24))
"""Sets of claims follow from a seed; more of them are made every night."""

LONG = ("weights.match", "selection.valid-top-k")
"""Clauses that construct as much as all others."""


def odd(seed: int) -> Iterator[Capabilities]:
    """Yield capabilities that are anything that can be claimed."""
    rng = random.Random(seed)

    def some(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(rng.sample(values, rng.randint(1, len(values))))

    def claim() -> Claim:
        axes = {axis: rng.choice(values) for axis, values in OFFERED.items()}
        return Claim(**axes, **{axis: some(getattr(Claim(), axis)) for axis in SOME})

    while True:
        with suppress(ValueError):  # a contradiction, or no room: refused with a message
            yield Capabilities(
                claims=tuple(claim() for _ in range(rng.randint(1, 2))),
                dtypes=some(Capabilities().dtypes),
                layouts=rng.choice([("contiguous",), ("contiguous", "strided")]),
                takes=rng.choice(["hidden", "hidden", "logits"]),
                limits=Limits(**{name: rng.choice(sizes) for name, sizes in SIZES.items()}),
            )


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_drawn_is_claimed(seed: int) -> None:
    rng, sets = random.Random(seed), odd(seed)
    for _ in range(40):
        capabilities = next(sets)
        for _ in range(10):
            case = choose_case(lambda _, offered: rng.choice(offered), capabilities, Focus())
            RouterConfig(**vars(case.config))
            check_inputs(case.config, case.inputs)
            assert capabilities.require(case.config, case.inputs)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_reference_passes_whatever_part_of_it_is_claimed(seed: int) -> None:
    """The part claimed is guarded: a call beyond it raises, and fails."""
    sets, adapter = odd(100 + seed), load_adapter("reference")
    whole = adapter.route
    every = tuple(CLAUSES.values())
    some = tuple(each for each in every if each.method not in OTHERS and each.id not in LONG)

    def route(config: RouterConfig, inputs: Any) -> Any:
        adapter.capabilities().require(config, inputs)
        return whole(config, inputs)

    adapter.route = route
    for clauses in (every, some):
        capabilities = next(sets)
        adapter.capabilities = lambda capabilities=capabilities: capabilities
        plan = Plan(clauses=clauses, max_examples=2, seed=seed, series=nightly(SERIES, None))
        found = {each.id: check_clause(adapter, each, plan) for each in clauses}
        wrong = {k: v.message for k, v in found.items() if v.status not in FINE}
        assert wrong == {}, capabilities
