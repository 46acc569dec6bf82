"""The reference router, compared with a second one that shares no code or structure with it.

Hundreds of random routers that span all axes must agree with ``naive_router``, stage by stage.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest
from naive_router import naive_token

from moe_routing.reference import (
    FORMATS,
    Groups,
    Renormalize,
    RmsNorm,
    RouterConfig,
    RouterInputs,
    Stages,
    route,
    stages,
)
from moe_routing.reference.config import SCORES, WEIGHTS_FROM

BOUND = 1e-12
"""How far two float64 routers may differ on the inputs drawn here.

``draw`` keeps H <= 8, |x| <= 2 (normalised or not), |w| + |delta| <= 2.5 and |bias| <= 1, so
the terms of a logit add up to M = 8 * 2 * 2.5 + 1 = 41 at most. On its way to a logit each
term meets at most 20 roundings of u = 2**-53 (9 in the normalised input, 1 in the product,
H + 2 = 10 in the sums), so two routers differ by 2 * 20 * u * 41 = 1.8e-13. A multiplier of at
most 2 makes that d = 3.7e-13, and the softcap only shrinks it. Logits may cancel, so theirs is
an absolute bound. Scores are positive: a change of d in every logit changes a softmax by a
factor of exp(2d) at most, a sigmoid by exp(d) and a sqrtsoftplus by exp(d / 2), and what is
renormalised by exp(2d) at most. Weights therefore agree to 2d = 7.3e-13, relatively; the sums
(of 32 terms at most), exponentials, powers and divisions after the logits add a hundred u at
the very most, 1.2e-14. All of it is below 1e-12.
"""

MOST_EXPERTS, MOST_HIDDEN = 32, 8
SEEDS = range(400)


@cache
def draw(seed: int) -> tuple[RouterConfig, RouterInputs]:
    """One random router with inputs: even seeds are free of near ties, odd seeds full of ties."""
    rng = np.random.default_rng(seed)
    tied = seed % 2 == 1
    groups, num_experts, most = draw_groups(rng, tied)
    top_k = int(rng.choice([1, 2, most, rng.integers(1, most + 1)], p=[0.2, 0.2, 0.1, 0.5]))
    score = str(rng.choice(SCORES))
    multiplier = rng.choice([1.0, 0.5, 2.0, -1.0, 0.0], p=[0.5, 0.2, 0.1, 0.1, 0.1])
    norm = None if tied or rng.random() < 0.7 else RmsNorm(eps=float(rng.choice([1e-6, 1.0])))
    weights_from = str(rng.choice(WEIGHTS_FROM[2:] if score == "identity" else WEIGHTS_FROM))
    config = RouterConfig(
        num_experts=num_experts,
        top_k=min(top_k, most),
        score=score,
        weights_from=weights_from,
        groups=groups,
        renormalize=draw_renormalize(rng),
        scale=float(rng.choice([1.0, 2.5, 0.0, -1.5])),
        logit_softcap=rng.choice([None, None, 5.0, 30.0]),
        logit_multiplier=float(multiplier),
        input_norm=norm,
    )
    return config, draw_inputs(rng, config, tied)


def draw_groups(rng: np.random.Generator, tied: bool) -> tuple[Groups | None, int, int]:
    """Groups or None, with E and the number of experts that may be selected."""
    if rng.random() < 0.4:
        num_experts = int(rng.integers(1, MOST_EXPERTS + 1))
        return None, num_experts, num_experts
    count, size = int(rng.integers(1, 5)), int(rng.integers(1, MOST_EXPERTS // 4 + 1))
    # Sums of three or more equal scores may be rounded in any order: no exact ties there.
    tops = [1, 2] if tied else [1, 2, 3, size, size + 1]
    kept = int(rng.integers(1, count + 1))
    fill = float(rng.choice([-math.inf, 0.0]))
    groups = Groups(count=count, kept=kept, top=int(rng.choice(tops)), fill=fill)
    return groups, count * size, kept * size


def draw_renormalize(rng: np.random.Generator) -> Renormalize | None:
    if rng.random() < 0.4:
        return None
    return Renormalize(
        eps=float(rng.choice([0.0, 1e-20, 1e-6, 0.5])),
        floor=float(rng.choice([0.0, 1e-12, 0.75])),
        order=float(rng.choice([1.0, 2.0, 0.5, 3.0])),
    )


def draw_inputs(rng: np.random.Generator, config: RouterConfig, tied: bool) -> RouterInputs:
    T, H, E = int(rng.integers(0, 7)), int(rng.integers(1, MOST_HIDDEN + 1)), config.num_experts
    H = min(H, 4) if tied else H
    dtype = str(rng.choice(["float32", "bfloat16", "float16"]))

    def array(shape: tuple[int, ...], most: float) -> np.ndarray:
        if tied:  # small integers of one sign: logits are exact, and many of them equal
            return rng.integers(0, math.ceil(most) + 1, size=shape).astype(np.float32)
        values = np.clip(rng.normal(size=shape) * most / 2, -most, most)
        return FORMATS[dtype].round(values).astype(np.float32)

    def maybe(chance: float, shape: tuple[int, ...], most: float) -> np.ndarray | None:
        return array(shape, most) if rng.random() < chance else None

    table = config.groups is None and config.weights_from != "masked_scores" and rng.random() < 0.2
    return RouterInputs(
        hidden=array((T, H), 2.0 if not tied else 1.0),
        gate_weight=array((E, H), 2.0),
        gate_bias=maybe(0.3, (E,), 1.0),
        gate_delta=maybe(0.3, (E, H), 0.5),
        per_expert_scale=maybe(0.3, (E,), 2.0),
        hidden_scale=None if config.input_norm is None else maybe(0.7, (H,), 2.0),
        selection_bias=None if table else draw_selection_bias(rng, config, tied),
        expert_table=rng.integers(0, E, size=(5, config.top_k)) if table else None,
        token_ids=rng.integers(0, 5, size=T) if table else None,
        dtype=dtype,
    )


def draw_selection_bias(
    rng: np.random.Generator, config: RouterConfig, tied: bool
) -> np.ndarray | None:
    if rng.random() < 0.4:
        return None
    offset = float(rng.choice([0.0, -1.0, 0.5]))
    bias = rng.normal(size=config.num_experts) * 0.5 + offset
    if tied:
        # Quarters keep equal scores equal; sums of two must not reach one value two ways.
        alone = config.groups is None or config.groups.top == 1
        bias = np.round(bias * 4) / 4 if alone else np.full_like(bias, offset)
    return bias.astype(np.float32)


def assert_close(
    name: str, got: np.ndarray, naive: list[float], relative: float, absolute: float
) -> None:
    expected = np.array(naive, dtype=np.float64)
    assert got.shape == expected.shape, f"{name} has shape {got.shape}, not {expected.shape}"
    assert got.dtype == np.float64, f"{name} is {got.dtype}, but should be float64"
    close = np.isclose(got, expected, rtol=relative, atol=absolute, equal_nan=True)
    assert close.all(), f"{name}={got[~close]}, but should be {expected[~close]}"


def assert_same_stages(
    case: str, config: RouterConfig, got: Stages, t: int, naive: dict[str, Any]
) -> None:
    absolute = dict.fromkeys(("logits", "operated", "biased", "competing"), BOUND)
    absolute["scores"] = BOUND if config.score == "identity" else 0.0
    if config.groups is not None:  # sums of this many scores
        absolute["group_scores"] = BOUND * min(config.groups.top, config.experts_per_group)
    for name, expected in naive.items():
        stage, value = f"{case} {name}[{t}]", getattr(got, name)
        if expected is None:
            assert value is None, f"{stage} must be None"
        elif name in ("kept", "expert_ids"):
            ids = value[t].tolist()
            assert ids == expected, f"{stage}={ids}, but should be {expected}"
        else:
            assert_close(stage, value[t], expected, BOUND, absolute.get(name, 0.0))


@pytest.mark.parametrize("first", SEEDS[::10])
def test_every_stage_agrees_with_the_naive_router(first: int) -> None:
    for seed in range(first, first + 10):
        config, inputs = draw(seed)
        got = stages(config, inputs)
        for t in range(inputs.num_tokens):
            assert_same_stages(f"draw({seed})", config, got, t, naive_token(config, inputs, t))


@pytest.mark.parametrize("seed", SEEDS[:10])
def test_route_returns_the_last_stage_and_the_logits(seed: int) -> None:
    config, inputs = draw(seed)
    routing, done = route(config, inputs), stages(config, inputs)
    for name in ("weights", "expert_ids", "logits"):
        np.testing.assert_array_equal(getattr(routing, name), getattr(done, name), name)
    assert routing.weights.shape == routing.expert_ids.shape == (inputs.num_tokens, config.top_k)
    assert (routing.weights.dtype, routing.expert_ids.dtype) == (np.float64, np.int64)


def test_the_random_routers_span_every_axis() -> None:
    seen: Counter[tuple[str, Any]] = Counter()
    for config, inputs in map(draw, SEEDS):
        groups, rule = config.groups, config.renormalize
        seen.update((name, getattr(config, name)) for name in vars(config))
        seen.update((name, getattr(inputs, name) is not None) for name in vars(inputs))
        if groups is not None:
            top = "size" if groups.top == config.experts_per_group else groups.top
            seen.update([("top", top), ("fill", groups.fill), ("one group", groups.count == 1)])
            seen["top", "above size"] += groups.top > config.experts_per_group
            seen["all kept", groups.kept == groups.count] += 1
        if rule is not None:
            seen.update((f"renormalize.{name}", value) for name, value in vars(rule).items())
        seen["K", "E" if config.top_k == config.num_experts else min(config.top_k, 3)] += 1
        seen["score and weights", (config.score, config.weights_from)] += 1
        seen["T", min(inputs.num_tokens, 1)] += 1
        seen["dtype", inputs.dtype] += 1
    optional = ("gate_bias", "gate_delta", "selection_bias", "per_expert_scale", "expert_table")
    wanted = [("score", s) for s in SCORES] + [("weights_from", w) for w in WEIGHTS_FROM]
    wanted += [("score and weights", (s, w)) for s in SCORES[:3] for w in WEIGHTS_FROM]
    wanted += [("score and weights", ("identity", w)) for w in WEIGHTS_FROM[2:]]
    wanted += [("groups", None), ("renormalize", None), ("one group", True), ("all kept", False)]
    wanted += [("top", top) for top in (1, 2, 3, "size", "above size")]
    wanted += [("fill", fill) for fill in (-math.inf, 0.0)]
    wanted += [("renormalize.eps", eps) for eps in (0.0, 1e-20, 1e-6, 0.5)]
    wanted += [("renormalize.floor", floor) for floor in (0.0, 1e-12, 0.75)]
    wanted += [("renormalize.order", order) for order in (0.5, 1.0, 2.0, 3.0)]
    wanted += [("scale", scale) for scale in (1.0, 2.5, 0.0, -1.5)]
    wanted += [("logit_softcap", cap) for cap in (None, 5.0, 30.0)]
    wanted += [("logit_multiplier", m) for m in (1.0, 0.5, 2.0, -1.0, 0.0)]
    wanted += [("input_norm", norm) for norm in (None, RmsNorm(eps=1e-6), RmsNorm(eps=1.0))]
    wanted += [(name, given) for name in (*optional, "hidden_scale") for given in (True, False)]
    wanted += [("K", k) for k in (1, 2, 3, "E")] + [("T", 0), ("T", 1)]
    wanted += [("dtype", name) for name in ("float32", "bfloat16", "float16")]
    rare = {item: seen[item] for item in wanted if seen[item] < 5}
    assert not rare, f"draw these more often: {rare}"


def test_the_random_routers_meet_the_events_that_matter() -> None:
    seen: Counter[str] = Counter()
    for config, inputs in map(draw, SEEDS):
        got, K = stages(config, inputs), config.top_k
        if inputs.expert_table is not None:
            continue
        ranked = -np.sort(-got.competing, axis=1)
        if config.num_experts > K:
            seen["tie at the cut"] += int((ranked[:, K - 1] == ranked[:, K]).sum())
        if config.groups is not None:
            best = -np.sort(-got.group_scores, axis=1)
            kept = config.groups.kept
            if kept < config.groups.count:
                seen["tie between groups"] += int((best[:, kept - 1] == best[:, kept]).sum())
            selected = np.take_along_axis(got.kept, got.expert_ids, axis=1)
            seen["excluded expert selected through the fill"] += int((~selected).any(axis=1).sum())
            seen["all group scores negative"] += int((got.group_scores < 0).all(axis=1).sum())
        unbiased = np.argsort(-got.scores, axis=1, kind="stable")[:, :K]
        steered = (np.sort(unbiased, axis=1) != np.sort(got.expert_ids, axis=1)).any(axis=1)
        seen["bias changed the selection"] += int(steered.sum() if config.groups is None else 0)
    assert len(seen) == 5, f"every event must be reachable: {dict(seen)}"
    assert min(seen.values()) >= 5, f"every event must happen: {dict(seen)}"
