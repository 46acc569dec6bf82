"""The adapters of axolotl: what they refuse, what they need, and that axolotl's own code runs."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from adapter_calls import (
    DTYPES,
    NO_EMPTY_BATCH,
    SCATTERMOE,
    SONICMOE,
    V3,
    E,
    H,
    K,
    cases_of,
    drawn,
    inputs_of,
    needs_axolotl,
    shared_inputs,
)

from moe_routing.implementations import (
    BackendMissing,
    Unsupported,
    torch_inputs,
)
from moe_routing.implementations._axolotl import kernel_module, moe_block, sonicmoe_patch
from moe_routing.reference import (
    FORMATS,
    Groups,
    Renormalize,
    RouterConfig,
    SharedExpertConfig,
    route,
)


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

    @pytest.mark.parametrize(
        ("adapter", "note"),
        [(SCATTERMOE, ""), (SONICMOE, "; its seven routing functions were last in 0.16.1")],
    )
    def test_no_axolotl(self, monkeypatch, adapter, note):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        wanted = f"axolotl is not installed: python -m pip install --no-deps axolotl==0.19.0{note}"
        with pytest.raises(BackendMissing, match=f"^{wanted}$"):
            adapter.route(V3, inputs_of("gate"))
        with pytest.raises(BackendMissing, match=f"^{wanted}$"):
            adapter.shared_experts(SharedExpertConfig(), shared_inputs())

    def test_an_axolotl_without_the_folder(self, monkeypatch, tmp_path):
        spec = Mock(submodule_search_locations=[str(tmp_path)])
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
        with pytest.raises(BackendMissing, match=r"no kernels/libs/sonicmoe: .*last in 0\.16\.1"):
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
