"""Near misses of the events of gradients: all is there but the one thing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from moe_routing.conformance.calls.gradients import GradientCase
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.gradient_gates import GATE, HIDDEN
from moe_routing.conformance.events.registry import ROWS
from moe_routing.conformance.generators.gradients import with_cotangent
from moe_routing.reference import Groups, Renormalize, RmsNorm, RouterConfig, RouterInputs


def differentiated(
    rows: Any = ROWS, top_k: int = 2, *, cotangent: Any = None, arrays: Any = (), **config: Any
) -> GradientCase:
    """Return the case of these logits."""
    rows = np.asarray(rows, np.float32)
    inputs = RouterInputs.from_logits(rows, **dict(arrays))
    made = RouterConfig(num_experts=rows.shape[1], top_k=top_k, **config)
    case = with_cotangent(Case(config=made, inputs=inputs))
    if cotangent is None:
        return case
    given = np.broadcast_to(np.asarray(cotangent, np.float32), rows.shape)
    return replace(case, inputs=replace(case.inputs, cotangent=given))


def gated(gate: Any = GATE, cotangent: Any = 0.0, **arrays: Any) -> GradientCase:
    """Return the case of a gate, by default with nothing to go back."""
    norm = {"input_norm": RmsNorm()} if "hidden_scale" in arrays else {}
    inputs = RouterInputs(
        hidden=np.array(HIDDEN, np.float32),
        gate_weight=np.array(gate, np.float32),
        **{name: np.array(each, np.float32) for name, each in arrays.items()},
    )
    config = RouterConfig(num_experts=len(gate), top_k=2, **norm)
    given = np.full((len(HIDDEN), len(gate)), cotangent, np.float32)
    return GradientCase.of(Case(config=config, inputs=inputs), given)


SUM, ALONE = Renormalize(), {"top_k": 1, "renormalize": Renormalize(floor=0.5)}
TABLE = {"token_ids": [0, 1, 2]}
HALVES = Groups(count=2, kept=1)

NEAR_GRADIENTS: dict[str, GradientCase] = {
    "gradient-any": differentiated(cotangent=0.0),
    "gradient-normed": differentiated(renormalize=SUM, cotangent=2.0),
    "gradient-not-normed": differentiated(renormalize=SUM),
    "gradient-normed-alone": differentiated(**ALONE),
    "gradient-norm-of-order": differentiated(renormalize=SUM),
    "gradient-norm-with-eps": differentiated(renormalize=Renormalize(eps=1e-20)),
    "gradient-floored": differentiated(score="sigmoid", renormalize=Renormalize(floor=0.5)),
    "gradient-scaled": differentiated(scale=0.0),
    "gradient-capped": differentiated(logit_softcap=30.0),
    "gradient-multiplied": differentiated(),
    "gradient-masked": differentiated(weights_from="masked_scores", groups=HALVES, score="sigmoid"),
    "gradient-selection-bias": differentiated(arrays={"selection_bias": [0.0] * 4}),
    "gradient-saturated": differentiated([[2.0, 1.0, 0.0, -1.0]]),
    "gradient-overflowing-exponential": differentiated([[1.0, -88.0, 0.5, 2.0]], score="sigmoid"),
    "gradient-repeated": differentiated(arrays={**TABLE, "expert_table": [[0, 1], [1, 2], [3, 2]]}),
    "gradient-elsewhere": differentiated(
        ROWS, 1, arrays={**TABLE, "expert_table": [[3], [1], [2]]}
    ),
    "gradient-nan-row": differentiated([[np.nan] * 4]),
    "gradient-no-tokens": differentiated(ROWS[:1]),
    "gradient-tokens-above-256": differentiated(np.resize(np.array(ROWS), (256, 4))),
    "gradient-tokens-above-1024": differentiated(np.resize(np.array(ROWS), (1024, 4))),
    "gradient-whole-blocks-of-1024": differentiated(np.resize(np.array(ROWS), (1023, 4))),
    "gradient-experts-above-512": differentiated(),
    "gradient-columns-above-4096": gated(cotangent=1.0),
    "gradient-fine-cotangent": differentiated(),
    "gradient-strided-cotangent": differentiated(),
    "gradient-cotangent-of-all-sizes": differentiated(cotangent=[2.0**18, 1.0, 0.5, 2.0]),
    "gradient-zero-cotangent": differentiated(),
    "gradient-small-sigmoid": differentiated([[-5.0, -4.0, -6.0, -8.0]], score="sigmoid"),
    "gradient-expert-scale-alone": differentiated(
        arrays={"per_expert_scale": np.float32([0.5, 2.0, -1.0, 1.5])}
    ),
    "gradient-gate": gated(),
    "gradient-exact-sum": gated(np.zeros_like(GATE), cotangent=1.0),
    "gradient-delta": gated(cotangent=1.0, gate_delta=np.zeros_like(GATE)),
    "gradient-gate-bias": gated(gate_bias=[0.5, 0.0, 1.0, 0.25]),
    "gradient-expert-scale-by-zero": differentiated(
        arrays={"per_expert_scale": np.float32([0.5, 2.0, -1.0, 1.5])}
    ),
    "gradient-columns-above-128": gated(cotangent=1.0),
    "gradient-expert-scale": gated(per_expert_scale=[0.5, 2.0, -1.0, 1.5]),
    "gradient-wide-gate": differentiated(arrays={"dtype": "bfloat16", "gate_dtype": "input"}),
    "gradient-hidden-scale": gated(hidden_scale=[0.5, -1.0, 2.0]),
}
"""A case for each event that stands alone, which does not show it."""
