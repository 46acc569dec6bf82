"""Calls of the shipped adapters for their tests, and comparisons with the reference."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

from moe_routing.implementations import ANY, Claim, FlatRouting, load_adapter
from moe_routing.reference import (
    FORMATS,
    Groups,
    Renormalize,
    RmsNorm,
    RouterConfig,
    RouterInputs,
    Routing,
    SharedExpertInputs,
)
from moe_routing.reference.config import SCORES, WEIGHTS_FROM

torch = pytest.importorskip("torch")

T, H, E, K = 5, 6, 8, 3
DTYPES = ("float32", "bfloat16", "float16")
EAGER, SCATTERMOE, SONICMOE = map(load_adapter, ("torch", "scattermoe", "sonicmoe"))
V3 = RouterConfig(num_experts=E, top_k=K, score="sigmoid", renormalize=Renormalize(eps=1e-20))
NO_EMPTY_BATCH = "softmax_group_limited_topk_routing"
ERNIE = RouterConfig(num_experts=E, top_k=K, renormalize=Renormalize(floor=1e-12))

needs_axolotl = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("axolotl", "triton")),
    reason="axolotl or triton is not installed",
)
ADAPTERS = [
    pytest.param(EAGER, id="torch"),
    pytest.param(SCATTERMOE, id="scattermoe", marks=needs_axolotl),
    pytest.param(SONICMOE, id="sonicmoe", marks=needs_axolotl),
]
# The whole spec, score by score, thinned where axes do not meet.
SPEC = [
    Claim(
        name=score,
        score=(score,),
        weights_from=WEIGHTS_FROM[2:] if score == "identity" else WEIGHTS_FROM,
        renormalize=(None, Renormalize(), Renormalize(eps=0.01, floor=0.5, order=2.0)),
        selection_bias=("none", "gate"),
        gate_delta=(True,),
        per_expert_scale=(True,),
    )
    for score in SCORES
]
CLAIMS = [
    *(pytest.param(EAGER, claim, id=f"torch-{claim.name}") for claim in SPEC),
    *(
        pytest.param(adapter, claim, id=f"{adapter.name}-{i}-{claim.name}", marks=needs_axolotl)
        for adapter in (SCATTERMOE, SONICMOE)
        for i, claim in enumerate(adapter.capabilities().claims)
    ),
]


def drawn(seed: int, *shape: int, dtype: str = "float32", integers: bool = False) -> Any:
    """Return normal numbers, or small integers, that ``dtype`` holds."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-3, 4, shape) if integers else rng.normal(size=shape)
    return FORMATS[dtype].round(values).astype(np.float32)


def inputs_of(
    bias: str = "none", *, delta: bool = False, integers: bool = False, **fields: Any
) -> RouterInputs:
    """Return inputs with a positive selection bias.

    Positive: then kept experts stay above a fill of 0.0, which is where routers that fill
    with 0.0 and with -inf agree.
    """
    kind = {"dtype": fields.get("dtype", "float32"), "integers": integers}
    arrays = {
        "hidden": drawn(0, T, H, **kind),
        "gate_weight": drawn(1, E, H, **kind),
        "gate_delta": drawn(2, E, H, **kind) if delta else None,
        "selection_bias": None if bias == "none" else abs(drawn(3, E)),
        "selection_bias_on": "gate" if bias == "none" else bias,
    }
    return RouterInputs(**{**arrays, **fields})


def cases_of(claim: Claim, **fields: Any) -> Iterator[tuple[RouterConfig, RouterInputs]]:
    """Yield a case for every combination of the axes that change which code runs."""
    lacking = "none" if claim.name == "sigmoid_topk_routing" else ""  # it raises; see below
    biases = [place for place in claim.selection_bias if place != lacking]
    for source, rule, renormalize, bias, delta, scaled, norm in product(
        claim.weights_from,
        claim.groups,
        claim.renormalize,
        biases,
        claim.gate_delta,
        claim.per_expert_scale,
        claim.input_norm,
    ):
        top = 2 if rule is None or rule.top is ANY else rule.top[0]
        config = RouterConfig(
            num_experts=E,
            top_k=K,
            score=claim.score[0],
            weights_from=source,
            groups=rule and Groups(count=4, kept=2, top=top, fill=rule.fill[0]),
            renormalize=renormalize,
            scale=2.5 if claim.scale is ANY else 1.0,
            logits_dtype=claim.logits_dtype[0],
            input_norm=RmsNorm(eps=1e-5) if norm else None,
        )
        scales = {"per_expert_scale": 1 + abs(drawn(5, E, integers=True))} if scaled else {}
        if norm:
            scales["hidden_scale"] = 1 + abs(drawn(6, H, integers=True))
        yield config, inputs_of(bias, delta=delta, **scales, **fields)


def rows_of(answer: Routing | FlatRouting) -> tuple[Any, Any]:
    """Return the expert ids ``[T, K]`` in ascending order, and their weights."""
    if isinstance(answer, FlatRouting):
        answer = Routing(weights=answer.scores, expert_ids=answer.expert_indices)
    ids, weights = (
        torch.as_tensor(array).reshape(T, K) for array in (answer.expert_ids, answer.weights)
    )
    order = ids.argsort(dim=1, stable=True)
    return ids.gather(1, order).long().numpy(), weights.gather(1, order).double().numpy()


def assert_near(answer: Routing | FlatRouting, wanted: Routing) -> None:
    """A sanity check of the adapter, on inputs without near ties; the judge is elsewhere."""
    (ids, weights), (wanted_ids, wanted_weights) = rows_of(answer), rows_of(wanted)
    np.testing.assert_array_equal(ids, wanted_ids)
    np.testing.assert_allclose(weights, wanted_weights, rtol=1e-4)


def shared_inputs(*, gated: bool = False) -> SharedExpertInputs:
    return SharedExpertInputs(
        hidden=drawn(0, T, H),
        gate_proj=drawn(1, 4, H),
        up_proj=drawn(2, 4, H),
        down_proj=drawn(3, H, 4),
        gate=drawn(4, 1, H) if gated else None,
    )
