"""Certain logits: what is decided without the sums of magnitudes is decided as with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from both_judges import drawn, parts_of

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.judge import Answer, Bounds, certain_logits, judge, lean
from moe_routing.conformance.judge.allowance import logits_used
from moe_routing.conformance.judge.certain_logits import LazyLogits
from moe_routing.implementations import Numerics
from moe_routing.reference import RouterConfig, RouterInputs, route
from moe_routing.reference.formats import INPUT_FORMATS

CASES = [drawn(number, 23) for number in range(24)]
LOGITS = ("bfloat16", "float16", "float32")


def found(case: Case, answer: Answer, numerics: Numerics, logits: Any) -> dict[str, Any]:
    """All that a verdict says, with the logits first: before anything makes their interval."""
    bounds = Bounds(case.config, case.inputs, numerics)
    verdict = judge(bounds, answer, logits=logits)
    names = ("judged", "logits", "selection", "weights", "decided", "apart")
    said = {name: getattr(verdict, name) for name in names}
    permitted = bounds.logits.permitted
    return {
        **said,
        **parts_of(bounds, answer, logits),
        "permitted": np.stack([permitted.lo, permitted.hi]),
        "exact": bounds.logits.exact,
        "overflows": bounds.logits.overflows,
    }


@pytest.mark.parametrize("by_blocks", [False, True], ids=["whole", "by blocks"])
def test_verdicts_are_the_same(monkeypatch: pytest.MonkeyPatch, by_blocks: bool) -> None:
    lazy = 0
    for case, answers, numerics, logits in CASES:
        if by_blocks:
            monkeypatch.setattr(lean, "LARGE", 0)
            monkeypatch.setattr(lean, "_BLOCK", 3 * case.config.num_experts)
        whole = [found(case, each, numerics, logits) for each in answers[:2]]
        with monkeypatch.context() as patch:
            patch.setattr(certain_logits, "LARGE", 0)
            bounds = Bounds(case.config, case.inputs, numerics).logits
            lazy += isinstance(bounds, LazyLogits)
            parts = [found(case, each, numerics, logits) for each in answers[:2]]
        for one, other in zip(whole, parts, strict=True):
            for name, value in one.items():
                where = f"{name} of {case.size} {case.config}"
                np.testing.assert_array_equal(other[name], value, err_msg=where)
    assert lazy > len(CASES) // 2


def call(kind: str, dtype: str, logits_dtype: str) -> tuple[RouterConfig, RouterInputs]:
    """A call of normal numbers, of numbers that are mostly exact, or of far too large ones."""
    rng = np.random.default_rng(5)
    x, w = rng.standard_normal((40, 96)), rng.standard_normal((24, 96))
    if kind == "exact":
        x, w = np.rint(x * 4) / 4, np.rint(w * 4) / 4
        x[::5, -1] += 2.0**-7
    if kind == "large":
        x *= 1e3
        x[3], w[4] = 0.0, 0.0
    form = INPUT_FORMATS[dtype]
    inputs = RouterInputs(
        hidden=np.float32(form.round(x)), gate_weight=np.float32(form.round(w)), dtype=dtype
    )
    return RouterConfig(num_experts=24, top_k=2, logits_dtype=logits_dtype), inputs


@pytest.mark.parametrize("logits_dtype", ["float32", "input"])
@pytest.mark.parametrize("dtype", LOGITS)
@pytest.mark.parametrize("kind", ["normal", "exact", "large"])
def test_logits_near_the_ends_of_what_is_permitted(
    monkeypatch: pytest.MonkeyPatch, kind: str, dtype: str, logits_dtype: str
) -> None:
    monkeypatch.setattr(certain_logits, "LARGE", 0)
    config, inputs = call(kind, dtype, logits_dtype)
    whole = Bounds(config, inputs, Numerics()).logits
    lo, hi, reference = whole.permitted.lo, whole.permitted.hi, whole.reference
    rng = np.random.default_rng(6)
    for reach in (0.0, 1e-9, 0.05, 0.5, 0.999999, 1.0, 1.000001, 1.5):
        end = np.where(rng.random(lo.shape) < 0.5, lo, hi)
        own = reference + reach * (end - reference)
        for value in (own, np.nextafter(own, np.inf), np.nextafter(own, -np.inf)):
            lazy = Bounds(config, inputs, Numerics()).logits
            assert isinstance(lazy, LazyLogits)
            np.testing.assert_array_equal(lazy.contain(value), whole.permitted.contains(value))


def test_an_honest_answer_needs_no_sums_of_magnitudes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certain_logits, "LARGE", 0)
    config, inputs = call("normal", "float32", "float32")
    done = route(config, inputs)
    own = np.float32(inputs.hidden) @ np.float32(inputs.gate_weight).T
    answer = Answer(weights=done.weights, expert_ids=done.expert_ids, logits=own.astype(np.float64))
    bounds = Bounds(config, inputs, Numerics())
    assert judge(bounds, answer, logits="copy").logits.all()
    assert isinstance(bounds.logits, LazyLogits)
    assert bounds.judged.all()
    bare = Bounds(config, inputs, Numerics())
    assert bare.judged.all()
    assert bare.logits.contain(answer.logits).all()
    assert not bare.logits.made


def test_what_is_certain_has_no_share_of_an_allowance(monkeypatch: pytest.MonkeyPatch) -> None:
    config, inputs = call("normal", "float32", "float32")
    done = route(config, inputs)
    own = (np.float32(inputs.hidden) @ np.float32(inputs.gate_weight).T).astype(np.float64)
    answer = Answer(weights=done.weights, expert_ids=done.expert_ids, logits=own)
    assert logits_used(judge(Bounds(config, inputs, Numerics()), answer, logits="routed")) > 0.0
    monkeypatch.setattr(certain_logits, "LARGE", 0)
    bounds = Bounds(config, inputs, Numerics())
    verdict = judge(bounds, answer, logits="routed")
    assert logits_used(verdict) == 0.0
    assert isinstance(bounds.logits, LazyLogits)
    assert not bounds.logits.made, "the share of what is certain cost its sums of magnitudes"
    own[0, 0] += bounds.logits.permitted.hi[0, 0] - bounds.logits.permitted.lo[0, 0]
    assert logits_used(judge(bounds, answer, logits="routed")) > 1.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_what_may_leave_the_range_is_looked_at_token_by_token(
    monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    monkeypatch.setattr(certain_logits, "LARGE", 0)
    config, inputs = call("normal", "float32", "float32")
    hidden = inputs.hidden.copy()
    hidden[7, 0] = value
    odd = RouterInputs(hidden=hidden, gate_weight=inputs.gate_weight)
    judged = Bounds(config, odd, Numerics()).judged
    monkeypatch.setattr(certain_logits, "LARGE", np.inf)
    np.testing.assert_array_equal(judged, Bounds(config, odd, Numerics()).judged)
    assert judged.sum() == len(judged) - 1
