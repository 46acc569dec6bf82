"""What it costs to judge a permutation of a million routes over 384 experts."""

from __future__ import annotations

import numpy as np
from bench_clocks import Benchmark, place

from moe_routing.conformance.calls.permutation import PermutationCase
from moe_routing.conformance.judge import permutation_laws as laws
from moe_routing.conformance.judge import permutation_parts as parts
from moe_routing.conformance.judge.permutation import Due
from moe_routing.conformance.trial.permutation import read
from moe_routing.reference import PermutationConfig, Routes, as_sorted_routes, permute

CONFIG = PermutationConfig(num_experts=384, align=128)
LAWS = (
    *parts.LAWS.values(),
    *(laws.no_waste, laws.capacity_of_buffer, laws.stable),
    *(parts.inverse, parts.gather, parts.weights_follow),
)


def routes() -> Routes:
    """Return a million routes of eight slots a token, one in ten of them absent."""
    rng = np.random.default_rng(0)
    ids = np.argsort(rng.random((125_000, 384), np.float32), axis=1)[:, :8].copy()
    ids[rng.random(ids.shape) < 0.1] = -1
    return Routes(expert_ids=ids, weights=np.where(ids < 0, 0, rng.random(ids.shape, np.float32)))


def test_a_million_routes(benchmark: Benchmark) -> None:
    case = PermutationCase(config=CONFIG, inputs=routes())
    layout = as_sorted_routes(permute(CONFIG, case.inputs), case.inputs)

    def judged() -> list[object]:
        due, answer = Due(case.config, case.inputs), read(layout, case)
        return [law(due, answer) for law in LAWS]

    place(benchmark, "A permutation, judged", "1,000,000 routes, 384 experts", "all laws")
    assert benchmark(judged) == [None] * len(LAWS)
