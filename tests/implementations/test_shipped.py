"""The shipped adapters: what they return, claim by claim and method by method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from adapter_calls import (
    ADAPTERS,
    CLAIMS,
    DTYPES,
    EAGER,
    ERNIE,
    NO_EMPTY_BATCH,
    SCATTERMOE,
    SONICMOE,
    V3,
    E,
    H,
    K,
    T,
    assert_near,
    cases_of,
    drawn,
    inputs_of,
    needs_axolotl,
    rows_of,
    shared_inputs,
)

from moe_routing.implementations import (
    Adapter,
    BackendMissing,
    Dispatches,
    FlatRouting,
    torch_inputs,
)
from moe_routing.implementations.tensors import watching_tensors
from moe_routing.reference import (
    Groups,
    Renormalize,
    RouterConfig,
    RouterInputs,
    SharedExpertConfig,
    dispatch,
    route,
    shared_contribution,
)

torch = pytest.importorskip("torch")


class TestEveryClaim:
    @pytest.mark.parametrize(("adapter", "claim"), CLAIMS)
    def test_near_the_reference(self, adapter, claim):
        for config, inputs in cases_of(claim):
            claimed = adapter.capabilities().require(config, inputs)
            assert adapter is EAGER or claimed == claim, "another claim took the case"
            assert_near(adapter.route(config, inputs), route(config, inputs))

    @pytest.mark.parametrize(("adapter", "claim"), CLAIMS)
    @pytest.mark.parametrize("num_tokens", [0, 1, T])
    def test_native_tensors_in_the_declared_layout(self, adapter, claim, num_tokens):
        for config, inputs in cases_of(claim, hidden=drawn(0, num_tokens, H)):
            if num_tokens == 0 and config.groups and claim.name == NO_EMPTY_BATCH:
                continue
            answer = adapter.route(config, inputs)
            if isinstance(answer, FlatRouting):
                tokens = torch.arange(num_tokens, dtype=torch.int32).repeat_interleave(K)
                assert answer.num_tokens == num_tokens
                assert answer.token_indices.equal(tokens), "tokens should ascend, K times each"
                assert answer.token_indices.dtype == answer.expert_indices.dtype == torch.int32
                assert answer.expert_indices.shape == answer.scores.shape == (num_tokens * K,)
            else:
                assert answer.expert_ids.dtype == torch.int64
                assert answer.expert_ids.shape == answer.weights.shape == (num_tokens, K)
            weights = answer.scores if isinstance(answer, FlatRouting) else answer.weights
            assert weights.dtype == torch.float32, "weights should come in float32"
            assert not weights.requires_grad
            routed = adapter.capabilities().logits == "routed"
            assert answer.logits.shape == (num_tokens, E) if routed else answer.logits is None

    @pytest.mark.parametrize(("adapter", "claim"), CLAIMS)
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_strided_tensors_are_read_right_and_left_alone(self, adapter, claim, dtype):
        wide = drawn(0, T, 2 * H, dtype=dtype)[:, ::2]
        tall = drawn(1, H, E, dtype=dtype).T
        for config, inputs in cases_of(claim, hidden=wide, gate_weight=tall, dtype=dtype):
            config = replace(config, logits_dtype=claim.logits_dtype[-1])
            with watching_tensors() as watched:
                answer = adapter.route(config, inputs)
            assert all(np.array_equal(w.tensor.float(), w.array) for w in watched)
            assert len(watched) == len(inputs.arrays())
            weights = rows_of(answer)[1]
            assert np.isfinite(weights).all(), "NaN came in from between the elements"


class TestEager:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("least", ["input", "float32"])
    def test_dtypes_follow_the_configuration(self, dtype, least):
        config = RouterConfig(num_experts=E, top_k=K, logits_dtype=least, weights_dtype=least)
        answer = EAGER.route(config, inputs_of(dtype=dtype))
        wanted = getattr(torch, dtype) if least == "input" else torch.float32
        assert answer.logits.dtype == answer.weights.dtype == wanted

    @pytest.mark.parametrize("score", ["softmax", "sigmoid", "sqrtsoftplus"])
    def test_scores_of_input_precision_are_rounded_to_it(self, score):
        fine = RouterConfig(num_experts=3, top_k=2, score=score, logits_dtype="input")
        inputs = RouterInputs.from_logits([[-3.0, -4.0, -5.0]], dtype="bfloat16")
        for config, rounded in ((fine, False), (replace(fine, scores_dtype="input"), True)):
            weights = EAGER.route(config, inputs).weights
            assert weights.bfloat16().float().equal(weights) == rounded

    def test_linear_bias_and_logit_op(self):
        config = replace(V3, logit_softcap=2.0, logit_multiplier=0.5)
        inputs = inputs_of("gate", gate_bias=drawn(7, E))
        answer = EAGER.route(config, inputs)
        assert_near(answer, route(config, inputs))
        np.testing.assert_allclose(answer.logits, route(config, inputs).logits, rtol=1e-4)

    def test_hash_routing_looks_the_experts_up(self):
        table, tokens = np.array([[0, 1, 2], [5, 5, 7]]), np.array([1, 0, 1, 1, 0])
        config = RouterConfig(num_experts=E, top_k=K, score="sqrtsoftplus")
        inputs = inputs_of(expert_table=table, token_ids=tokens)
        np.testing.assert_array_equal(EAGER.route(config, inputs).expert_ids, table[tokens])
        assert_near(EAGER.route(config, inputs), route(config, inputs))

    @pytest.mark.parametrize(
        "bad",
        [
            {"top_k": E + 1},
            {"top_k": 0},
            {"top_k": 1, "groups": Groups(count=3, kept=1)},
            {"top_k": 3, "groups": Groups(count=4, kept=1)},
            {"top_k": 1, "score": "entmax"},
        ],
    )
    def test_bad_configurations_are_rejected(self, bad):
        with pytest.raises(ValueError, match=r"^(Cannot have|Expected) "):
            EAGER.route(RouterConfig.unchecked(num_experts=E, **bad), inputs_of())


@pytest.fixture
def reduced_precision():
    """torch's settings that let a GPU add the parts of a product in 16 bits, turned on."""
    products = pytest.importorskip("torch").backends.cuda.matmul
    names = [f"allow_{kind}_reduced_precision_reduction" for kind in ("bf16", "fp16")]
    before = {name: getattr(products, name) for name in names}
    for name in names:
        setattr(products, name, True)
    yield lambda: [getattr(products, name) for name in names]
    for name, value in before.items():
        setattr(products, name, value)


def test_on_another_device_the_parts_of_a_product_are_added_in_float32(reduced_precision):
    torch_inputs(inputs_of())
    assert reduced_precision() == [True, True], "a CPU is left as it is"
    torch_inputs(inputs_of(), device="meta")
    assert reduced_precision() == [False, False]


@needs_axolotl
class TestBias:
    @pytest.mark.parametrize(
        ("adapter", "place", "config"),
        [
            *((EAGER, place, V3) for place in ("gate", "block", "statics")),
            *((adapter, "gate", V3) for adapter in (SCATTERMOE, SONICMOE)),
            *(
                (adapter, "block", replace(V3, renormalize=Renormalize()))
                for adapter in (SCATTERMOE, SONICMOE)
            ),
            (SONICMOE, "statics", ERNIE),
        ],
    )
    def test_steers_from_every_place_and_leaves_the_weights_alone(self, adapter, place, config):
        bias = np.where(np.isin(np.arange(E), [1, 4, 6]), 9.0, 0.0)
        inputs = inputs_of(place, selection_bias=bias)
        answer = adapter.route(config, inputs)
        np.testing.assert_array_equal(rows_of(answer)[0], np.tile([1, 4, 6], (T, 1)))
        assert_near(answer, route(config, inputs))

    @pytest.mark.parametrize("adapter", [EAGER, SCATTERMOE])
    @pytest.mark.parametrize("score", ["softmax", "sigmoid"])
    @pytest.mark.parametrize("bias", ["none", "gate", "block"])
    def test_decides_in_dispatch_whatever_the_score_says(self, adapter, score, bias):
        rule = Renormalize(eps=1e-20 if bias == "gate" else 0.0)
        config = replace(V3, score=score, renormalize=rule, logits_dtype="input")
        inputs = inputs_of(bias)
        assert_near(adapter.dispatch(config, inputs), dispatch(config, inputs))


class TestOptionalMethods:
    @pytest.mark.parametrize("adapter", ADAPTERS)
    def test_what_each_adapter_has(self, adapter):
        assert isinstance(adapter, Adapter)
        assert isinstance(adapter, Dispatches) == (adapter is not SONICMOE)

    @pytest.mark.parametrize("adapter", ADAPTERS)
    @pytest.mark.parametrize("kind", ["singular", "plural", "mlp", "none"])
    @pytest.mark.parametrize("gated", [False, True])
    def test_shared_experts(self, adapter, kind, gated):
        gated = gated and kind != "none"
        try:
            output = adapter.shared_experts(
                SharedExpertConfig(kind=kind, gated=gated), shared_inputs(gated=gated)
            )
        except BackendMissing as missing:
            pytest.skip(str(missing))
        # The function of sonicmoe leaves the sigmoid gate to the block's forward.
        gated = gated and adapter is not SONICMOE
        wanted = shared_contribution(
            SharedExpertConfig(kind=kind, gated=gated), shared_inputs(gated=gated)
        )
        if kind == "none":
            assert output is None, "without a shared expert there is nothing to add"
        else:
            np.testing.assert_allclose(output, wanted, rtol=1e-4)
