"""The allowance used: an answer's error as a share of its bounds."""

from __future__ import annotations

import numpy as np
import pytest
from verdicts import PLAIN, from_logits, router, verdict_on, wrong_stages

from moe_routing.conformance.judge import Answer, Bounds, judge
from moe_routing.conformance.judge.allowance import allowance_used, logits_used, weights_used
from moe_routing.reference import Renormalize, RouterInputs, route, stages
from moe_routing.reference.formats import FORMATS


def test_honest_bfloat16_uses_little_beyond_its_forced_rounding() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(13)
    form = FORMATS["bfloat16"]
    draw = {"hidden": rng.normal(size=(40, 64)), "gate_weight": rng.normal(size=(16, 64))}
    arrays = {name: form.round(array).astype(np.float32) for name, array in draw.items()}
    inputs = RouterInputs(dtype="bfloat16", **arrays)
    axes = {"logits_dtype": "input", "weights_dtype": "input", "renormalize": Renormalize()}
    config = router(16, 4, **axes)
    x, w = (torch.tensor(arrays[name]).bfloat16() for name in ("hidden", "gate_weight"))
    logits = torch.nn.functional.linear(x, w)
    weights, ids = torch.softmax(logits.float(), dim=1).topk(4, dim=1)
    weights = (weights / weights.sum(dim=1, keepdim=True)).bfloat16()
    answer = Answer(
        weights=weights.double().numpy(),
        expert_ids=ids.numpy(),
        logits=logits.double().numpy(),
        weights_dtype="bfloat16",
        logits_dtype="bfloat16",
    )
    bounds = Bounds(config, inputs, PLAIN)
    verdict = judge(bounds, answer, logits="routed")
    assert verdict.right, f"{wrong_stages(verdict)} of honest bfloat16 is wrong"
    error = np.abs(answer.logits - bounds.logits.reference)
    raw = (error / (bounds.logits.permitted.hi - bounds.logits.reference)).max()
    assert raw > 0.8, f"the raw share is {raw:.3g}: nothing to explain"
    assert logits_used(verdict) < 0.5, f"logits use {logits_used(verdict):.3g}"
    assert weights_used(verdict) <= 1.0, f"weights use {weights_used(verdict):.3g}"
    most = max(logits_used(verdict), weights_used(verdict))
    assert allowance_used(verdict) == most, "the allowance used is not the larger of the two"


def test_an_answer_beyond_its_bound_uses_more_than_all_of_it() -> None:
    config, inputs = router(3, 2, "sigmoid"), from_logits([[3.0, 1.0, 0.0]])
    done = stages(config, inputs)
    off = verdict_on(config, inputs, done.expert_ids, done.weights * 1.01, done.logits + 0.01)
    assert wrong_stages(off) == ["logits", "weights"]
    assert logits_used(off) > 1, f"wrong logits use {logits_used(off)}"
    assert weights_used(off) > 1, f"wrong weights use {weights_used(off)}"


def test_the_allowance_ignores_what_is_not_judged_or_not_finite() -> None:
    config = router(3, 2, "sigmoid", renormalize=Renormalize())
    inputs = RouterInputs(
        hidden=np.array([[1.0, 0.0], [np.nan, 0.0], [-130.0, -130.0]], np.float32),
        gate_weight=np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], np.float32),
        gate_bias=np.array([0.0, 0.0, -np.inf], np.float32),
    )
    done = route(config, inputs)
    weights = done.weights.copy()
    weights[1], weights[2] = 99.0, [1.0, 0.0]
    own = done.logits.copy()
    own[1] = 99.0
    verdict = verdict_on(config, inputs, done.expert_ids, weights, own, "copy")
    assert verdict.right, f"{wrong_stages(verdict)} is wrong"
    assert verdict.decided.tolist()[::2] == [True, False], "the last norm may be 0"
    used = allowance_used(verdict)
    assert used == 0.0, f"used {used} where nothing is held to anything"
