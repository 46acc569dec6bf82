"""Near misses of the events of balance: all is there but the one thing."""

from __future__ import annotations

from typing import Any

import numpy as np

from moe_routing.conformance.calls.balance import BalanceCase
from moe_routing.conformance.events.balance import LOGITS
from moe_routing.conformance.generators.balance import case_of
from moe_routing.reference import BalanceConfig

EVEN = np.array([[[0, 1], [2, 3], [1, 0], [3, 2]]])


def balanced(
    *, top_k: int = 2, layers: int = 1, ids: Any = None, valid: Any = None, **fields: Any
) -> BalanceCase:
    """Return the case of the events' logits, at their greatest experts or at ``ids``."""
    logits = np.array(LOGITS)[:layers]
    chosen = np.argsort(-logits, axis=2)[:, :, :top_k] if ids is None else np.array(ids)
    return case_of(BalanceConfig(num_experts=4, **fields), logits, chosen, valid)


ALIKE = np.repeat(np.argsort(-np.array(LOGITS)[:1], axis=2)[:, :, :2], 2, axis=0)

NEAR_BALANCES: dict[str, BalanceCase] = {
    "balanced-uneven": balanced(ids=EVEN),
    "balanced-large-logits": balanced(),
    "balanced-second-slot": balanced(ids=EVEN),
    "balanced-idle-expert": balanced(ids=[[[0, 1], [2, 3], [0, 1], [0, 2]]]),
    "balanced-padded": balanced(valid=(0, 0, 0, 0)),
    "balanced-absent": balanced(ids=[[[0, 1], [-1, -1], [2, 0], [0, 1]]], valid=(1, 0, 1, 1)),
    "balanced-not-chosen": balanced(),
    "balanced-several-layers": balanced(layers=2, ids=ALIKE),
    "balanced-layers-sum": balanced(layers=2, over_layers="mean"),
    "balanced-layers-mean": balanced(layers=2, over_layers="pooled"),
    "balanced-layers-pooled": balanced(layers=1, over_layers="pooled"),
    "balanced-is-one": balanced(top_k=1, at_balance="one"),
    "balanced-is-top_k": balanced(at_balance="one"),
    "balanced-first-counted": balanced(top_k=1, counted="first"),
    "balanced-by-softmax": balanced(score="sigmoid"),
    "balanced-by-sigmoid": balanced(ids=EVEN, score="sigmoid"),
    "balanced-update-sign": balanced(ids=EVEN),
    "balanced-update-centred": balanced(ids=EVEN, update="centred"),
    "balanced-evaluation": balanced(ids=EVEN, mode="eval"),
    "balanced-recomputed": balanced(mode="train"),
}
"""A case for each event that stands alone, which does not show it."""
