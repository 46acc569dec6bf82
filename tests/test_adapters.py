"""The shipped adapters: what they return and refuse, and that the backend's own code runs."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from moe_routing.implementations import (
    ANY,
    Adapter,
    BackendMissing,
    Claim,
    Dispatches,
    FlatRouting,
    Unsupported,
    load_adapter,
    torch_inputs,
)
from moe_routing.implementations._axolotl import kernel_module, moe_block, sonicmoe_patch
from moe_routing.implementations.tensors import watching_tensors
from moe_routing.reference import (
    FORMATS,
    Groups,
    Renormalize,
    RmsNorm,
    RouterConfig,
    RouterInputs,
    Routing,
    SharedExpertConfig,
    SharedExpertInputs,
    dispatch,
    route,
    shared_contribution,
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


class TestRefusals:
    @pytest.mark.parametrize("adapter", [SCATTERMOE, SONICMOE])
    @pytest.mark.parametrize(
        ("changes", "axis"),
        [
            ({"score": "sqrtsoftplus"}, "score='sqrtsoftplus'"),
            ({"logit_softcap": 30.0}, "logit_softcap=True"),
            ({"renormalize": Renormalize(eps=1e-6)}, "renormalize=Renormalize(eps=1e-06"),
            ({"groups": Groups(count=4, kept=2, top=1)}, "groups=Groups(count=4, kept=2, top=1"),
        ],
    )
    def test_the_message_names_the_axis(self, adapter, changes, axis):
        with pytest.raises(Unsupported) as refusal:
            adapter.route(replace(V3, **changes), inputs_of("gate"))
        assert axis in str(refusal.value)

    def test_float32_logits_are_more_than_the_softmax_of_scattermoe_gives(self):
        with pytest.raises(Unsupported, match="logits_dtype='float32'"):
            SCATTERMOE.route(RouterConfig(num_experts=E, top_k=K), inputs_of())

    @needs_axolotl
    @pytest.mark.parametrize("adapter", [SCATTERMOE, SONICMOE])
    def test_bad_configurations_reach_the_backend(self, adapter):
        config = RouterConfig.unchecked(num_experts=E, top_k=E + 1, logits_dtype="input")
        with pytest.raises(RuntimeError, match="selected index k out of range"):
            adapter.route(config, inputs_of())

    @needs_axolotl
    def test_sonicmoe_raises_without_the_bias_that_a_family_may_lack(self):
        with pytest.raises(AttributeError, match="e_score_correction_bias"):
            SONICMOE.route(V3, inputs_of())

    @needs_axolotl
    def test_sonicmoe_raises_on_an_empty_batch_of_deepseek_v2(self):
        claim = next(c for c in SONICMOE.capabilities().claims if c.name == NO_EMPTY_BATCH)
        config, inputs = list(cases_of(claim, hidden=drawn(0, 0, H)))[-1]
        with pytest.raises(RuntimeError, match="cannot reshape tensor of 0 elements"):
            SONICMOE.route(config, inputs)


class TestMissingBackends:
    @pytest.fixture(autouse=True)
    def _nothing_loaded(self):
        for load in (kernel_module, sonicmoe_patch):
            load.cache_clear()
        yield
        for load in (kernel_module, sonicmoe_patch):
            load.cache_clear()

    @pytest.mark.parametrize("adapter", [SCATTERMOE, SONICMOE])
    def test_no_axolotl(self, monkeypatch, adapter):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        wanted = "axolotl is not installed: python -m pip install --no-deps axolotl==0.16.1"
        with pytest.raises(BackendMissing, match=f"^{wanted}$"):
            adapter.route(V3, inputs_of("gate"))
        with pytest.raises(BackendMissing, match=f"^{wanted}$"):
            adapter.shared_experts(SharedExpertConfig(), shared_inputs())

    def test_an_axolotl_without_the_folder(self, monkeypatch, tmp_path):
        spec = Mock(submodule_search_locations=[str(tmp_path)])
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
        with pytest.raises(BackendMissing, match=r"no kernels/libs/sonicmoe: .*axolotl==0\.16\.1"):
            SONICMOE.route(V3, inputs_of("gate"))

    @needs_axolotl
    def test_no_triton(self, monkeypatch):
        for name in [name for name in sys.modules if name.startswith("_axolotl_scattermoe")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "triton", None)
        with pytest.raises(BackendMissing, match=r"needs triton, .* pip install triton$"):
            SCATTERMOE.route(V3, inputs_of("gate"))

    @needs_axolotl
    def test_not_all_that_the_patch_of_sonicmoe_imports(self, monkeypatch):
        absent = Mock(side_effect=ModuleNotFoundError(name="peft"))
        monkeypatch.setattr(importlib, "import_module", absent)
        with pytest.raises(BackendMissing, match=r"needs peft, .* pip install pydantic .* addict$"):
            SONICMOE.shared_experts(SharedExpertConfig(), shared_inputs())


@needs_axolotl
class TestTheBackendsOwnCode:
    def test_all_seven_sonicmoe_functions_run(self, monkeypatch):
        routing = kernel_module("sonicmoe", "routing")
        names = [name for name in vars(routing) if name.endswith("_routing")]
        spies = self._spies(monkeypatch, routing, names)
        for claim in SONICMOE.capabilities().claims:
            before = spies[claim.name].call_count
            SONICMOE.route(*next(cases_of(claim)))
            assert spies[claim.name].call_count == before + 1, f"{claim.name} should have run"
        assert [spy.called for spy in spies.values()] == [True] * 7
        assert routing.__file__.endswith("axolotl/integrations/kernels/libs/sonicmoe/routing.py")

    def test_the_four_scattermoe_functions_run(self, monkeypatch):
        layers = kernel_module("scattermoe_lora", "layers")
        names = ["_softmax_topk_route", "_sigmoid_topk_route", "_route", "_compute_shared_expert"]
        softmax = RouterConfig(num_experts=E, top_k=K, logits_dtype="input")
        spies = self._spies(monkeypatch, layers, names)
        SCATTERMOE.route(softmax, inputs_of())
        SCATTERMOE.route(V3, inputs_of("gate"))
        assert [spy.call_count for spy in spies.values()] == [1, 1, 0, 0]
        SCATTERMOE.dispatch(softmax, inputs_of())
        SCATTERMOE.shared_experts(SharedExpertConfig(), shared_inputs())
        assert [spy.call_count for spy in spies.values()] == [2, 1, 1, 1]
        assert layers.__file__.endswith("kernels/libs/scattermoe_lora/layers.py")

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_the_lora_wrapper_stands_for_the_delta_to_the_bit(self, dtype):
        delta = drawn(2, E, H, dtype=dtype)
        delta[0, 0], delta[1, 1] = FORMATS[dtype].largest, FORMATS[dtype].tiny / 2
        given = torch_inputs(inputs_of(gate_delta=delta, dtype=dtype))
        gate = moe_block(inputs_of(), given).gate
        unwraps = (
            kernel_module("scattermoe_lora", "layers")._unwrap_gate_lora,
            kernel_module("sonicmoe", "lora").unwrap_gate_lora,
        )
        for _, weight, delta in (unwrap(gate) for unwrap in unwraps):
            assert weight is given.gate_weight
            assert delta.dtype == given.gate_delta.dtype
            assert delta.equal(given.gate_delta)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("claim", SONICMOE.capabilities().claims[:-1], ids=lambda c: c.name)
    def test_exact_logits_change_as_in_the_reference(self, claim, dtype):
        for config, inputs in cases_of(claim, integers=True, dtype=dtype):
            logits = SONICMOE.route(config, inputs).logits.float()
            np.testing.assert_array_equal(logits, route(config, inputs).logits)

    def _spies(self, monkeypatch: Any, module: Any, names: list[str]) -> dict[str, Mock]:
        spies = {name: Mock(wraps=getattr(module, name)) for name in names}
        for name, spy in spies.items():
            monkeypatch.setattr(module, name, spy)
        return spies


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
    @pytest.mark.parametrize("told", ["softmax", "sigmoid"])
    @pytest.mark.parametrize("bias", ["none", "gate", "block"])
    def test_decides_in_dispatch_whatever_the_score_says(self, adapter, told, bias):
        rule = Renormalize(eps=1e-20 if bias == "gate" else 0.0)
        config = replace(V3, score=told, renormalize=rule, logits_dtype="input")
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
