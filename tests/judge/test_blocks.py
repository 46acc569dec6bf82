"""Blocks of rows: a large call gets the verdict, bit for bit, that it gets as a whole."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from both_judges import drawn, parts_of

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.judge import Answer, Bounds, judge, lean
from moe_routing.conformance.judge.allowance import allowance_used
from moe_routing.implementations import Numerics
from moe_routing.reference import RouterConfig, RouterInputs, Stages

CASES = [drawn(number, 11) for number in range(16)]


def found(case: Case, answer: Answer, numerics: Numerics, logits: Any) -> dict[str, Any]:
    """All that a verdict says, and what is read of its bounds."""
    bounds = Bounds(case.config, case.inputs, numerics)
    verdict = judge(bounds, answer, logits=logits)
    permitted, exact = bounds.logits.permitted, bounds.logits.exact
    return {
        **parts_of(bounds, answer, logits),
        "judged": verdict.judged,
        "distinct": verdict.distinct,
        "in range": verdict.in_range,
        "logits": verdict.logits,
        "permitted": np.stack([permitted.lo, permitted.hi]),
        "exact": exact,
        "used": np.array(allowance_used(verdict)),
        "competing": verdict.later.competing.lo[verdict.judged],
        **{f"reference {each.name}": getattr(bounds.reference, each.name) for each in STAGES},
    }


STAGES = [each for each in fields(Stages) if each.name != "products"]


def by_blocks(monkeypatch: pytest.MonkeyPatch, numbers: int) -> None:
    """Have every call judged by blocks of so many numbers in their logits."""
    monkeypatch.setattr(lean, "LARGE", 0)
    monkeypatch.setattr(lean, "_BLOCK", numbers)


def test_blocks_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    split = 0
    for case, answers, numerics, logits in CASES:
        whole = [found(case, each, numerics, logits) for each in answers[:2]]
        with monkeypatch.context() as patch:
            by_blocks(patch, 3 * case.config.num_experts)
            split += len(lean.blocks_of(case.config, case.inputs)) > 1
            parts = [found(case, each, numerics, logits) for each in answers[:2]]
        for one, other in zip(whole, parts, strict=True):
            for name, value in one.items():
                where = f"{name} of {case.size} {case.config}"
                np.testing.assert_array_equal(other[name], value, err_msg=where)
    assert split > len(CASES) // 2


def test_exactness_is_decided_for_the_call_and_not_for_the_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hidden = np.float32(np.random.default_rng(2).standard_normal((64, 64)))
    hidden[-1] = 1.0  # the one token whose logits are exact, in the last block
    gate = np.float32(np.eye(64)[:8] + 1.0)
    config, inputs = (
        RouterConfig(num_experts=8, top_k=2),
        RouterInputs(hidden=hidden, gate_weight=gate),
    )
    whole = Bounds(config, inputs, Numerics()).logits
    assert whole.exact[-1].all()
    assert not whole.exact[:-1].any()
    by_blocks(monkeypatch, 64)
    bounds = Bounds(config, inputs, Numerics())
    for rows in bounds.blocks:
        part = bounds.block(rows).logits
        np.testing.assert_array_equal(part.permitted.lo, whole.permitted.lo[rows])
        np.testing.assert_array_equal(part.exact, whole.exact[rows])


def test_a_large_call_holds_its_logits_and_their_magnitudes_alone() -> None:
    inputs = RouterInputs.from_logits(np.zeros((2**13 + 1, 128), np.float32) + np.eye(1, 128))
    bounds = Bounds(RouterConfig(num_experts=128, top_k=2), inputs, Numerics())
    assert len(bounds.blocks) > 1
    assert not {"scores", "biased", "competing"} & set(vars(bounds.reference))
    assert bounds.reference.scores.shape == (2**13 + 1, 128), "made when it is read"
    assert not hasattr(bounds.reference, "nothing")
