"""Rounded bias: experts that share a bias move together, and change places in no router."""

from __future__ import annotations

import numpy as np
import pytest

from moe_routing.conformance import Case
from moe_routing.conformance.cases.kinds import facts_of
from moe_routing.conformance.events import EVENTS
from moe_routing.conformance.judge import Answer, Bounds, judge
from moe_routing.implementations import Capabilities, Numerics
from moe_routing.reference import RouterConfig, RouterInputs, stages
from moe_routing.reference.formats import INPUT_FORMATS


def biased(logits: list[float], bias: list[float], dtype: str) -> Case:
    inputs = RouterInputs.from_logits(
        np.float32([logits]), dtype=dtype, selection_bias=np.float32(bias), selection_bias_on="gate"
    )
    return Case(
        config=RouterConfig(num_experts=len(logits), top_k=1, score="sigmoid"), inputs=inputs
    )


def may_decide(case: Case) -> bool:
    return EVENTS["rounded-bias"].occurs(facts_of(case, Capabilities()))


def decides(case: Case) -> bool:
    """Whether a router in float32 is wrong once it rounds its bias to the dtype of the inputs."""
    bias = case.inputs.selection_bias
    assert bias is not None
    rounded = INPUT_FORMATS[case.inputs.dtype].round(bias).astype(np.float32)
    assert (rounded != bias).any(), "rounding changes nothing"
    scores = stages(case.config, case.inputs).scores.astype(np.float32)
    ids = np.argmax(scores + rounded, axis=1)[:, None]  # of a tie, the lower
    weights = np.take_along_axis(scores, ids, axis=1).astype(np.float64)
    bounds = Bounds(case.config, case.inputs, Numerics())
    return not judge(bounds, Answer(weights=weights, expert_ids=ids)).selection.all()


@pytest.mark.parametrize("bias", [-1e10, -6e4, -56.3, 0.3])
def test_experts_of_one_bias_stay_in_order(bias: float) -> None:
    case = biased([0.0, 0.0, 2.0**-12, -1.0], [bias] * 4, "bfloat16")
    assert not decides(case)
    assert not may_decide(case), "a bias that all share steers nobody, rounded or not"


@pytest.mark.parametrize("bias", [[-1e10, -1e10], [-7e4, -7e4]])
def test_a_bias_that_rounds_to_infinity_may_tie_them(bias: list[float]) -> None:
    case = biased([0.0, 1.0], bias, "float16")
    assert may_decide(case) or not decides(case)


def test_coarser_sums_may_tie_experts_of_one_bias() -> None:
    """Below 2,048 the sums differ by one step of float32, and above they are the same."""
    first = np.float16(-0.85)
    seen = 0
    for _ in range(30):
        second = np.nextafter(first, np.float16(0.0))
        case = biased([float(first), float(second)], [2047.6, 2047.6], "float16")
        assert may_decide(case) or not decides(case), "a wrong answer that no list would excuse"
        seen += decides(case)
        first = second
    assert seen, "no case showed it: this test saw nothing"
