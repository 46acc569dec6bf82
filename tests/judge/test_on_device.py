"""The device's judge: what it decides NumPy decides alike, and what it leaves NumPy judges."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from device_judge import Logits, differences

from moe_routing.conformance.judge import (
    Answer,
    Bounds,
    by_device,
    certain_logits,
    judge,
    lean,
)
from moe_routing.conformance.judge.allowance import allowance_used
from moe_routing.conformance.judge.by_device import DeviceVerdict, judge_by_numpy
from moe_routing.conformance.judge.device_rows import DeviceRows
from moe_routing.conformance.judge.on_device import decided_there, has_torch
from moe_routing.conformance.trial.boundary import receive
from moe_routing.implementations import Numerics
from moe_routing.reference import (
    Groups,
    Renormalize,
    RouterConfig,
    RouterInputs,
    Routing,
    route,
)
from moe_routing.reference.formats import FORMATS

DEVICES = ["cpu", *(["cuda:0"] if torch.cuda.is_available() else [])]
SEED, CASES = 5, 25


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have calls of every size judged on a device: on a CPU too, as on a GPU."""
    monkeypatch.setattr(lean, "LARGE", 0)
    monkeypatch.setattr(certain_logits, "LARGE", 0)
    monkeypatch.setattr(by_device, "has_torch", lambda device: True)
    return str(request.param)


@pytest.mark.parametrize("logits", ["routed", "none", "copy"])
def test_both_judges_find_the_same(device: str, logits: Logits) -> None:
    counts: Counter = Counter()
    for number in range(CASES):
        found, seen = differences(number, SEED, logits, device)
        assert not found, "\n".join(found)
        counts.update(seen)
    assert counts["right"] > 500
    assert counts["decided"] > 0.6 * counts["right"], counts


def call(
    score: str = "sigmoid", dtype: str = "float32", **settings: Any
) -> tuple[RouterConfig, RouterInputs]:
    """A call of 300 tokens that differ; scores may be of the ``dtype`` of the hidden states."""
    rng, form = np.random.default_rng(1), FORMATS[dtype]
    hidden = form.round(rng.standard_normal((300, 32))).astype(np.float32)
    gate = form.round(rng.standard_normal((16, 32)) / 6.0).astype(np.float32)
    config = RouterConfig(
        **{"num_experts": 16, "top_k": 4, "score": score, "scores_dtype": "input"},
        **{"renormalize": Renormalize(), **settings},
    )
    return config, RouterInputs(hidden=hidden, gate_weight=gate, dtype=dtype)


def answer_of(config: RouterConfig, inputs: RouterInputs, device: str) -> Answer:
    """The right answer, in float32."""
    done = route(config, inputs)
    logits, weights = (FORMATS["float32"].round(x) for x in (done.logits, done.weights))
    return Answer(
        weights=weights,
        expert_ids=done.expert_ids,
        logits=logits,
        weights_dtype="float32",
        logits_dtype="float32",
        device=device,
    )


GROUPS = Groups(count=4, kept=2)
SETTINGS = [{}, {"groups": GROUPS}, {"renormalize": None}, {"logit_softcap": 2.0}]


@pytest.fixture(params=["plain", "grouped", "not divided", "capped"])
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What is asked of a router besides its score."""
    places = ["plain", "grouped", "not divided", "capped"]
    return SETTINGS[places.index(request.param)]


@pytest.mark.parametrize("routed", [True, False], ids=["routed", "without logits"])
@pytest.mark.parametrize("score", ["softmax", "sigmoid", "sqrtsoftplus"])
def test_a_right_answer_needs_nothing_of_numpy(
    device: str, score: str, settings: dict[str, Any], routed: bool
) -> None:
    config, inputs = call(score, **settings)
    answer = answer_of(config, inputs, device)
    given = answer if routed else replace(answer, logits=None)
    bounds = Bounds(config, inputs, Numerics())
    found = judge(bounds, given, logits="routed" if routed else "none")
    assert isinstance(found, DeviceVerdict)
    assert found.right
    assert found.judged.all()
    assert "large" not in bounds.__dict__, "no reference was made"
    numpy = judge_by_numpy(bounds, given, logits="routed" if routed else "none")
    assert allowance_used(found) == pytest.approx(allowance_used(numpy), rel=1e-6)
    permitted, same = found.weight_bounds.permitted, numpy.weight_bounds.permitted
    np.testing.assert_array_equal(permitted.lo, same.lo)
    np.testing.assert_array_equal(permitted.hi, same.hi)


@pytest.mark.parametrize("routed", [True, False], ids=["routed", "not routed"])
@pytest.mark.parametrize("score", ["softmax", "sigmoid", "sqrtsoftplus"])
def test_a_row_is_left_for_each_thing_that_is_wrong(
    device: str, score: str, settings: dict[str, Any], routed: bool
) -> None:
    config, inputs = call(score, **settings)
    answer = answer_of(config, inputs, device)
    last = np.argmin(route(replace(config, groups=None), inputs).logits, axis=1)
    answer.expert_ids[0, 0] = last[0]
    answer.expert_ids[1, 0] = -1
    answer.expert_ids[2, 0] = 16
    answer.expert_ids[3, 0] = answer.expert_ids[3, 1]
    answer.weights[4, 0] *= 1.0 + 2.0**-10
    answer.weights[5, 0] = np.nan
    answer.logits[6, 0] *= 1.0 + 2.0**-10  # type: ignore[index]
    answer.logits[7, 0] = -np.inf  # type: ignore[index]
    there = decided_there(Bounds(config, inputs, Numerics()), answer, routed=routed)
    assert there is not None
    assert np.flatnonzero(~there.right).tolist() == list(range(8))


def test_experts_of_groups_that_are_not_kept_are_left(device: str) -> None:
    config, inputs = call(groups=GROUPS)
    answer = answer_of(replace(config, groups=None), inputs, device)
    kept = route(config, inputs).expert_ids
    other = (np.sort(answer.expert_ids) != np.sort(kept)).any(axis=1)
    there = decided_there(Bounds(config, inputs, Numerics()), answer, routed=True)
    assert there is not None
    assert other.sum() > 100
    np.testing.assert_array_equal(there.right, ~other)


def test_a_norm_that_may_be_0_is_left(device: str) -> None:
    config, inputs = call()
    hidden = inputs.hidden.copy()
    hidden[:] = 100.0
    inputs = replace(inputs, hidden=hidden, gate_weight=-np.abs(inputs.gate_weight))
    answer = answer_of(config, inputs, device)
    there = decided_there(Bounds(config, inputs, Numerics()), answer, routed=True)
    assert there is not None
    assert not there.right.any()


@pytest.mark.parametrize("name", ["hidden", "selection_bias"])
def test_what_may_leave_its_format_is_left(device: str, name: str) -> None:
    config, inputs = call()
    bias = np.full(16, 3e38, np.float32)
    large: dict[str, dict[str, Any]] = {
        "hidden": {"hidden": inputs.hidden * np.float32(1e37)},
        "selection_bias": {"selection_bias": bias, "selection_bias_on": "gate"},
    }
    inputs = replace(inputs, **large[name])
    answer = answer_of(config, inputs, device)
    assert decided_there(Bounds(config, inputs, Numerics()), answer, routed=True) is None


def test_one_wrong_row_is_left_with_its_block(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean, "_BLOCK", 16 * 50)
    config, inputs = call()
    answer = answer_of(config, inputs, device)
    answer.expert_ids[120, 0] = answer.expert_ids[120, 1]
    bounds = Bounds(config, inputs, Numerics())
    found = judge(bounds, answer, logits="routed")
    assert isinstance(found, DeviceVerdict)
    assert np.flatnonzero(~found.there.right).tolist() == [120]
    assert np.flatnonzero(~found.distinct).tolist() == [120]
    assert len([*found.unlike()]) == 2, "the block of the row, and the rows nearest to their bounds"


@pytest.mark.parametrize("logits", ["routed", "none"])
def test_a_call_that_is_wrong_throughout_is_left(device: str, logits: Logits) -> None:
    config, inputs = call("softmax")
    answer = answer_of(config, inputs, device)
    answer = replace(answer, weights=answer.weights * 1.5)
    found = judge(Bounds(config, inputs, Numerics()), answer, logits=logits)
    numpy = judge_by_numpy(Bounds(config, inputs, Numerics()), answer, logits=logits)
    assert isinstance(found, DeviceVerdict)
    assert not found.there.right.any()
    np.testing.assert_array_equal(found.weights, numpy.weights)
    assert allowance_used(found) == allowance_used(numpy)


@pytest.mark.parametrize(
    "settings",
    [
        {"score": "softmax", "dtype": "bfloat16"},
        {"groups": Groups(count=4, kept=4, from_each=True)},
        {"groups": Groups(count=4, kept=2), "weights_from": "masked_scores"},
    ],
    ids=["softmax in 16 bits", "from each group", "masked scores"],
)
def test_what_a_device_does_not_decide_is_left(device: str, settings: dict[str, Any]) -> None:
    config, inputs = call(**settings)
    bounds = Bounds(config, inputs, Numerics())
    answer = answer_of(config, inputs, device)
    assert decided_there(bounds, answer, routed=True) is None
    assert judge(bounds, answer, logits="routed").right


def test_scores_in_16_bits_are_decided_from_own_logits_alone(device: str) -> None:
    config, inputs = call("sigmoid", dtype="bfloat16")
    bounds = Bounds(config, inputs, Numerics())
    answer = answer_of(config, inputs, device)
    assert decided_there(bounds, answer, routed=True) is not None
    assert decided_there(bounds, answer, routed=False) is None


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["of torch", "of cuBLAS"],
)
def test_a_device_without_memory_leaves_the_call(
    device: str, error: RuntimeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(DeviceRows, "_marks", full)
    config, inputs = call()
    answer = answer_of(config, inputs, device)
    found = judge(Bounds(config, inputs, Numerics()), answer, logits="routed")
    assert found.right
    assert not isinstance(found, DeviceVerdict)


def test_another_error_of_a_device_is_not_hidden(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(DeviceRows, "_marks", broken)
    config, inputs = call()
    with pytest.raises(RuntimeError, match="illegal memory access"):
        decided_there(
            Bounds(config, inputs, Numerics()), answer_of(config, inputs, device), routed=True
        )


def test_only_an_answer_of_a_gpu_is_judged_on_it() -> None:
    assert not has_torch("cpu")
    assert not has_torch("mps:0")
    assert has_torch("cuda:0") == torch.cuda.is_available()


@pytest.mark.parametrize("device", DEVICES)
def test_an_answer_says_where_it_lay(device: str) -> None:
    config, inputs = call()
    done = route(config, inputs)
    native = Routing(
        weights=torch.tensor(done.weights, device=device),
        expert_ids=torch.tensor(done.expert_ids, device=device),
    )
    assert receive(native, config, inputs.num_tokens).answer.device == device
