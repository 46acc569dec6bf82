"""Near misses of the events of replays: all is there but the one thing."""

from __future__ import annotations

from typing import Any

import numpy as np

from moe_routing.conformance.calls.replay import ReplayCase
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.registry import ROWS
from moe_routing.reference import Groups, Recorded, Renormalize, RouterConfig, RouterInputs

SUM = Renormalize()


def replayed(
    ids: Any = ((2, 1), (0, 3), (1, 0)),
    rows: Any = ROWS,
    *,
    arrays: Any = (),
    record: Any = (),
    **config: Any,
) -> ReplayCase:
    """Return the case of these logits and of one layer, or of ids ``[N, L, K]``."""
    table, held = np.asarray(rows, np.float32), np.asarray(ids, np.int64)
    held = held[:, None] if held.ndim == 2 else held
    made = RouterConfig(num_experts=table.shape[1], top_k=held.shape[2], **config)
    case = Case(config=made, inputs=RouterInputs.from_logits(table, **dict(arrays)))
    return ReplayCase.of(case, Recorded(expert_ids=held, **dict(record)))


BEST = ((3, 0), (1, 2), (2, 1))
"""The experts that the router would choose."""
LAYERS = [[[2, 1], [3, 0]], [[0, 3], [1, 2]], [[1, 0], [2, 3]]]
THREE = [[*each, [0, 1]] for each in LAYERS]
SAME = [[each[0]] * 3 for each in LAYERS]
ABSENT = ((-1, 1), (0, 3), (1, 2))
HALVES = Groups(count=2, kept=1)
OWN = [[[0.5, 0.25]], [[0.5, 0.25]], [[0.5, 0.25]]]

NEAR_REPLAYS: dict[str, ReplayCase] = {
    "replayed-elsewhere": replayed(BEST),
    "replayed-unsorted": replayed(((1, 2), (0, 3), (0, 1))),
    "replayed-normed": replayed(BEST, renormalize=SUM),
    "replayed-not-normed": replayed(renormalize=SUM),
    "replayed-tiny-norm": replayed(renormalize=SUM),
    "replayed-scaled": replayed(scale=0.0),
    "replayed-expert-scale": replayed(arrays={"per_expert_scale": [2.0] * 4}),
    "replayed-biased": replayed([[1], [1], [1]], arrays={"selection_bias": [2.0, 0, 0, 0]}),
    "replayed-masked": replayed(groups=HALVES, score="sigmoid"),
    "replayed-grouped": replayed(((3, 2), (0, 1), (2, 3)), groups=HALVES),
    "replayed-repeated": replayed(((-1, -1), (0, 3), (1, 2))),
    "replayed-some-absent": replayed(((-1, -1), (0, 3), (1, 2))),
    "replayed-absent-beside-first": replayed(ABSENT),
    "replayed-absent-normed": replayed(ABSENT),
    "replayed-absent-in-softmax": replayed(ABSENT),
    "replayed-absent-scaled": replayed(ABSENT, arrays={"per_expert_scale": [2.0] * 4}),
    "replayed-token-absent": replayed(ABSENT),
    "replayed-all-absent": replayed(((-1, -1), (-1, 3), (-1, -1))),
    "replayed-weights": replayed(),
    "replayed-fine-weights": replayed(record={"weights": OWN}),
    "replayed-absent-weights": replayed(record={"weights": OWN}),
    "replayed-reordered": replayed(record={"rows": [0, 1, 2]}),
    "replayed-order-of-three": replayed(record={"rows": [1, 0, 2]}),
    "replayed-packed": replayed(((2, 1), (0, 3), (1, 0), (2, 3)), record={"rows": [0, 1, 2]}),
    "replayed-padded": replayed(((2, 1), (0, 3)), record={"rows": [0, 1, -1]}),
    "replayed-layers": replayed(LAYERS, record={"layer": 1}),
    "replayed-later-layer": replayed(THREE, record={"layer": 2}),
    "replayed-last-layer": replayed(SAME, record={"layer": 2}),
    "replayed-layer-above-8": replayed(THREE, record={"layer": 2}),
    "replayed-signed-weights": replayed(record={"weights": OWN}),
    "replayed-unrecorded": replayed(BEST, record={"layer": None}),
    "replayed-strided": replayed(LAYERS),
    "replayed-no-tokens": replayed(((2, 1),), ROWS[:1]),
    "replayed-tokens-above-256": replayed(
        np.resize(np.array(((2, 1), (0, 3), (1, 0))), (256, 2)), np.resize(np.array(ROWS), (256, 4))
    ),
    "replayed-id-above-255": replayed([[255, 0]], [[0.0] * 257]),
    "replayed-id-above-32767": replayed([[256, 0]], [[0.0] * 257]),
}
"""A case for each event that stands alone, which does not show it."""
