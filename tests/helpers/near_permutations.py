"""Near misses of the events of permutations: all is there but the one thing."""

from __future__ import annotations

from typing import Any

import numpy as np

from moe_routing.conformance.calls.permutation import PermutationCase
from moe_routing.conformance.events.permutation import MIXED
from moe_routing.conformance.generators.permutation import case_of
from moe_routing.reference import PermutationConfig, Routes


def permuted(ids: Any, experts: int = 4, align: int = 1, **options: Any) -> PermutationCase:
    """Return the case of these experts."""
    config = PermutationConfig(num_experts=experts, align=align, **options)
    return case_of(config, ids)


def _alike() -> PermutationCase:
    config, ids = PermutationConfig(num_experts=4), np.array(MIXED)
    weights = np.full(ids.shape, 0.5, np.float32)
    return PermutationCase(config=config, inputs=Routes(expert_ids=ids, weights=weights))


NEAR_PERMUTATIONS: dict[str, PermutationCase] = {
    "permuted-several": permuted([[0], [1], [2]]),
    "permuted-second-slot": permuted([[1, 2], [2, 1]]),
    "permuted-order-at-stake": permuted(MIXED, order="free"),
    "permuted-distinct-weights": _alike(),
    "permuted-one-expert": permuted([[0], [0]], experts=1),
    "permuted-two-experts": permuted([[0, 1]] * 2, experts=2),
    "permuted-first-expert": permuted([[1]] * 3),
    "permuted-last-expert": permuted([[2]] * 3),
    "permuted-every-other-empty": permuted([[0, 2], [2, 0]], experts=5),
    "permuted-empty-first-and-last": permuted([[0, 1], [1, 2]]),
    "permuted-empty-takes-rows": permuted(MIXED, align=2),
    "permuted-count-on-multiple": permuted([[1], [1], [1]], align=2),
    "permuted-count-one-past": permuted([[0], [1], [1], [2]], experts=3, align=2),
    "permuted-count-one-short": permuted([[0], [0]], align=4),
    "permuted-repeated-expert": permuted([[0, 1], [1, 0]]),
    "permuted-all-experts": permuted([[0, 1], [1, 0]], experts=3),
    "permuted-none-absent": permuted([[0, -1]]),
    "permuted-some-absent": permuted([[0, 1], [-1, -1]]),
    "permuted-token-absent": permuted([[0, -1], [-1, 1]]),
    "permuted-all-absent": permuted([[-1, -1], [-1, 0]]),
    "permuted-routes-above-65535": permuted(np.zeros((65_535, 1)), experts=1),
    "permuted-signed-weights": permuted(MIXED),
    "permuted-odd-alignment": permuted([[0], [0], [1], [1]], align=2),
    "permuted-slots-above-32": permuted([np.arange(32)] * 3, experts=60),
    "permuted-tokens-above-65535": permuted(np.zeros((65_536, 1)), experts=2),
}
"""A case for each event that stands alone, which does not show it."""
