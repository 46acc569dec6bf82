"""The balls of a layer's experts: against honest code in torch, and as tight as they are said."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from near_experts import ran

from moe_routing.conformance.calls.experts import ExpertsCase
from moe_routing.conformance.generators.experts import VALUES, Wishes, choose_experts_case
from moe_routing.conformance.judge.activations import PLAIN
from moe_routing.conformance.judge.balls import Ball
from moe_routing.conformance.judge.experts import Layer
from moe_routing.implementations import Capabilities, load_adapter
from moe_routing.reference import ExpertsConfig, ExpertsInputs, activations, experts
from moe_routing.reference.formats import BFLOAT16, INPUT_FORMATS, FloatFormat

FORMS = pytest.mark.parametrize("form", INPUT_FORMATS.values(), ids=lambda form: form.name)


def drawn(seed: int, wishes: Wishes | None = None) -> ExpertsCase:
    rng = random.Random(seed)
    return choose_experts_case(lambda name, offered: rng.choice(offered), Capabilities(), wishes)


@pytest.mark.parametrize("values", VALUES)
def test_eager_torch_is_within_whatever_is_drawn(values: str) -> None:
    pytest.importorskip("torch")
    torch: Any = load_adapter("torch")
    for seed in range(40):
        case = drawn(seed, Wishes(offers={"values": (values,)}))
        honest = torch.experts(case.config, case.inputs).double().numpy()
        layer = Layer(case.config, case.inputs)
        assert layer.output.contains(honest).all(), (seed, case.config, case.size)


def test_a_bias_whose_product_with_the_weight_is_exact_hides_no_store() -> None:
    """gpt-oss in bfloat16: the biased answer is stored, and so is its product with the weight."""
    of_expert = {
        "gate_weight": 0.09033203125,
        "up_weight": 1.0,
        "down_weight": 0.64453125,
    }
    inputs = ExpertsInputs(
        hidden=np.full((1, 1), -2.0, np.float32),
        expert_ids=np.zeros((1, 1), np.int64),
        weights=np.full((1, 1), 0.1015625, np.float32),
        gate_bias=np.full((1, 1), 0.03759765625, np.float32),
        down_bias=np.full((1, 1), -4.0, np.float32),
        dtype="bfloat16",
        **{name: np.full((1, 1, 1), value, np.float32) for name, value in of_expert.items()},
    )
    config = ExpertsConfig(num_experts=1, activation="clamped-swiglu", limit=0.5)
    assert Layer(config, inputs).output.contains([[-4.03125 * 0.1015625]]).all()
    assert Layer(config, inputs).output.contains([[-0.41015625]]).all(), "as transformers has it"


def test_the_reference_is_the_centre() -> None:
    for seed in range(60):
        case = drawn(seed)
        ball = Layer(case.config, case.inputs).output
        np.testing.assert_allclose(
            ball.mid,
            experts(case.config, case.inputs),
            rtol=1e-9,
            atol=1e-12 * ball.reach.max(initial=0),
        )


def halves(torch: Any, function: Callable[[Any], Any], x: Any) -> Any:
    """Call a function on the first half of rows, as gate and up lie: torch takes another path."""
    half = 40
    rows = torch.cat([x.reshape(-1, half), x.reshape(-1, half)], dim=1)
    return function(rows.chunk(2, dim=-1)[0]).reshape(-1)


ACTIVATIONS: dict[str, Callable[[Any, Any], list[Any]]] = {
    "silu": lambda torch, x: [
        torch.nn.functional.silu(x),
        halves(torch, torch.nn.functional.silu, x),
        x * torch.sigmoid(x),
    ],
    "gelu": lambda torch, x: [
        torch.nn.functional.gelu(x),
        halves(torch, torch.nn.functional.gelu, x),
        x * 0.5 * (1 + torch.erf(x * 0.5**0.5)),
        x / 2 * torch.erfc(-x.double() * 0.5**0.5).to(x.dtype),
    ],
    "gelu-tanh": lambda torch, x: [
        torch.nn.functional.gelu(x, approximate="tanh"),
        halves(torch, partial(torch.nn.functional.gelu, approximate="tanh"), x),
        0.5 * x * (1 + torch.tanh(0.7978845608028654 * (x + 0.044715 * torch.pow(x, 3)))),
    ],
    "relu": lambda torch, x: [torch.relu(x)],
}


@FORMS
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("scale", [0.05, 1.0, 8.0, 60.0])
def test_honest_activations_are_within(form: FloatFormat, name: str, scale: float) -> None:
    torch = pytest.importorskip("torch")
    x = form.round(np.random.default_rng(3).standard_normal(2000) * scale)
    ball = PLAIN[name](Ball.exact(x), form)
    for honest in ACTIVATIONS[name](torch, torch.tensor(x).to(getattr(torch, form.name))):
        assert ball.contains(honest.double().numpy()).all()


@pytest.mark.parametrize("name", PLAIN)
def test_an_activation_moves_as_its_argument_may(name: str) -> None:
    rng = np.random.default_rng(4)
    x, moved = 4.0 * rng.standard_normal(3000), rng.uniform(0, 0.5, 3000)
    near = x + moved * rng.choice([-1.0, 1.0], 3000)
    ball = PLAIN[name](Ball(x, moved), INPUT_FORMATS["float32"])
    assert ball.contains(activations.PLAIN[name](near)).all()


@FORMS
def test_an_exact_output_is_held_to_its_last_bit(form: FloatFormat) -> None:
    case = drawn(3, Wishes(offers={"values": ("exact",), "dtype": (form.name,), "tokens": (17,)}))
    layer = Layer(case.config, case.inputs)
    right = experts(case.config, case.inputs)
    assert (layer.exact & (right != 0.0)).any()
    off = np.where(layer.exact, right + np.spacing(right.astype(np.float32)), right)
    assert layer.output.contains(right).all()
    assert not layer.output.contains(off)[layer.exact].any()


def test_tf32_is_permitted_only_where_it_is_declared() -> None:
    case = ran(values="exact", hidden=8, width=8)
    cut = {
        name: (array.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)
        for name, array in case.inputs.arrays().items()
        if name == "hidden"
    }
    answer = experts(case.config, replace(case.inputs, **cut))
    assert not Layer(case.config, case.inputs).output.contains(answer).all()
    assert Layer(case.config, case.inputs, "tf32").output.contains(answer).all()


def test_sums_in_bfloat16_show_in_exact_cases() -> None:
    case = ran(values="exact", hidden=8, width=8, dtype="bfloat16")
    inputs, total = case.inputs, np.zeros((case.num_tokens, 8))
    for t, k in np.argwhere(inputs.expert_ids >= 0):
        e = int(inputs.expert_ids[t, k])
        assert inputs.gate_weight is not None
        up = np.zeros(8)
        for h in range(8):
            up = BFLOAT16.round(up + inputs.hidden[t, h] * inputs.up_weight[e, :, h])
        gate = inputs.gate_weight[e].astype(np.float64) @ inputs.hidden[t]
        total[t] += inputs.weights[t, k] * (inputs.down_weight[e] @ (np.maximum(gate, 0) * up))
    layer = Layer(case.config, inputs)
    assert (~layer.output.contains(total) & layer.exact).any()


def test_an_expert_that_may_overflow_leaves_its_tokens_undecided_and_no_others() -> None:
    case = ran([[0, 1], [2, 1]], dtype="float16")
    up = case.inputs.up_weight.copy()
    up[0] = 60000.0
    layer = Layer(case.config, replace(case.inputs, up_weight=up))
    assert not layer.output.decided[0].all()
    assert layer.output.decided[1].all()
    assert layer.output.contains([[np.nan] * 4, experts(case.config, layer.inputs)[1]]).all()


def test_what_is_absent_or_unchosen_may_hold_anything() -> None:
    case = ran([[-1, 1], [-1, -1]], drafted={"poison": "nan"})
    hidden = case.inputs.hidden.copy()
    hidden[1] = np.nan
    ball = Layer(case.config, replace(case.inputs, hidden=hidden)).output
    assert ball.decided.all()
    assert (ball.mid[1] == 0.0).all()
    assert (ball.rad[1] == 0.0).all()


def test_a_sum_may_begin_with_its_bias() -> None:
    """A large bias is in every partial sum: adding it last errs by less."""
    case = ran([[0]] * 8, 1, gated=False, hidden=24, width=4, values="normal")
    up_bias = np.full((1, 4), 1000.0, np.float32)
    down = np.ones_like(case.inputs.down_weight)
    inputs = replace(case.inputs, up_bias=up_bias, down_weight=down)
    ball = Layer(case.config, inputs).output
    inner = np.broadcast_to(up_bias[0], (8, 4)).copy()
    for h in range(24):
        inner += inputs.hidden[:, h, None] * inputs.up_weight[0, :, h]
    total = np.maximum(inner, 0)
    answer = (total[:, [0]] + total[:, [1]]) + total[:, [2]] + total[:, [3]]
    assert ball.contains(answer * inputs.weights).all()


def test_a_weight_may_come_after_a_bias_with_which_its_own_product_is_exact() -> None:
    """Found by transformers' eager experts: one layer in 13,042."""
    case = ran([[0]], 1, gated=False, dtype="float16", hidden=1, width=1)
    given = {"hidden": 1.0, "up_weight": 0.02604675, "down_weight": -0.00386047}
    half = {name: np.float32(np.float16(value)) for name, value in given.items()}
    inputs = replace(
        case.inputs,
        **{name: np.full(getattr(case.inputs, name).shape, value) for name, value in half.items()},
        weights=np.full((1, 1), 0.1025390625),
        down_bias=np.full((1, 1), -0.046875),
    )
    ball = Layer(case.config, inputs).output
    stored = np.float16(np.float32(half["up_weight"] * half["down_weight"]))
    answer = np.float16(np.float32(np.float16(np.float32(stored) - 0.046875)) * 0.1025390625)
    assert ball.contains(answer).all()
    step = 2.0**-16 * 0.1025390625 + 2.0**-19  # half an ulp of the sum, weighed, and of the product
    assert (ball.rad >= step).all()


def test_experts_are_judged_alike_together_and_one_by_one() -> None:
    case = ran(np.arange(40)[:, None] % 5, 5, values="normal")
    together = Layer(case.config, case.inputs).output
    for t in range(40):
        row = {n: getattr(case.inputs, n)[t : t + 1] for n in ("hidden", "expert_ids", "weights")}
        alone = Layer(case.config, replace(case.inputs, **row)).output
        np.testing.assert_allclose(alone.rad[0], together.rad[t], rtol=1e-6)  # of sums in float32
