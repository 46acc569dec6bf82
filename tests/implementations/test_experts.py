"""The adapters of experts: the right sums, through each library's own function."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from expert_calls import check_experts, experts_call
from near_experts import ran

from moe_routing.conformance.cli import main
from moe_routing.implementations import (
    AdapterError,
    Computes,
    Unsupported,
    expand,
    find_adapter,
    load_adapter,
    out_of_scope,
)
from moe_routing.implementations.experts import ExpertsFunction, registered
from moe_routing.implementations.experts.models import MODELS
from moe_routing.reference import experts

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

FUNCTIONS = ("eager", "batched_mm", "grouped_mm")
RAISES = {"gpt_oss": RuntimeError, "openai_privacy_filter": RuntimeError, "nemotron_h": IndexError}
"""The models whose own forward raises on a route to another rank's expert: docs/findings.md."""
OTHERS = {"megatron-core": "megatron", "torchtitan-experts": "torchtitan"}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_transformers_functions_run_every_models_weights(function: str, model: str) -> None:
    backend: Any = load_adapter(f"experts:{function}@{model}")
    if function == "eager" and model in RAISES:
        activation = backend.capabilities().computes.activations[0]
        with pytest.raises(RAISES[model]):
            backend.experts(*experts_call(backend, activation, absent=True))
        config, inputs = experts_call(backend, activation, absent=False)
        found = backend.experts(config, inputs).numpy()
        np.testing.assert_allclose(found, experts(config, inputs), rtol=1e-5, atol=1e-5)
    else:
        check_experts(backend)


@pytest.mark.parametrize("name", OTHERS)
def test_training_frameworks_run_them(name: str) -> None:
    pytest.importorskip(OTHERS[name])
    check_experts(load_adapter(name))


def test_the_function_is_the_one_that_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    interface = import_module("transformers.integrations.moe").ALL_EXPERTS_FUNCTIONS
    spy = Mock(wraps=interface["batched_mm"])
    monkeypatch.setitem(interface._global_mapping, "batched_mm", spy)
    backend: Any = load_adapter("experts:batched_mm@aria")
    backend.experts(*experts_call(backend, "silu", absent=False))
    assert spy.call_count == 1
    assert type(spy.call_args.args[0]).__name__ == "AriaExperts"


def test_what_is_not_claimed_is_refused() -> None:
    backend: Any = load_adapter("experts:grouped_mm")
    config, inputs = experts_call(load_adapter("experts:eager"), "silu", absent=False)
    with pytest.raises(Unsupported, match="H=2 % 8 != 0, F=3 % 8 != 0"):
        backend.experts(config, inputs)


PLUG_IN = """
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, batched_mm_experts_forward

def doubled(module, hidden, ids, weights):
    return 2 * batched_mm_experts_forward(module, hidden, ids, weights)

ALL_EXPERTS_FUNCTIONS.register("mine", doubled)
"""


class TestPlugIns:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Iterator[str]:
        path = tmp_path / "my_kernels.py"
        path.write_text(PLUG_IN)
        yield str(path)
        import_module(registered._INTERFACE).ALL_EXPERTS_FUNCTIONS._global_mapping.pop("mine", None)

    @pytest.mark.parametrize("name", ["mine", "doubled"])
    def test_a_function_is_found_by_the_name_it_registers_or_its_own(
        self, file: str, name: str
    ) -> None:
        backend: Any = load_adapter(f"experts:{file}:{name}")
        assert backend.name == f"experts:{name}"
        config, inputs = experts_call(backend, "silu", absent=False)
        right = 2 * experts(config, inputs)
        np.testing.assert_allclose(backend.experts(config, inputs).numpy(), right, rtol=1e-5)

    def test_a_glob_stands_for_all_that_a_module_registers(self, file: str) -> None:
        assert expand(f"experts:{file}:*") == [f"experts:{file}:mine"]
        assert "experts:mine@gpt_oss" in expand("experts:*"), "once it is registered"
        assert find_adapter("experts:mine")[1] == "mine"

    def test_another_models_weights_can_be_named(self, file: str) -> None:
        backend: Any = load_adapter(f"experts:{file}:mine@aria")
        assert backend.name == "experts:mine@aria"

    @pytest.mark.parametrize(
        ("member", "words"),
        [
            ("{}:nothing", "No experts function 'nothing' is registered"),
            ("{}:mine@aira", "names no model 'aira'; there are mixtral"),
            ("no_such_module:mine", "Cannot import no_such_module"),
            ("batchedmm", "experts:batched_mm"),
        ],
    )
    def test_a_wrong_name_gets_one_line(self, file: str, member: str, words: str) -> None:
        with pytest.raises(AdapterError) as refused:
            load_adapter(f"experts:{member.format(file)}")
        assert words in str(refused.value)
        assert "\n" not in str(refused.value)


def test_a_function_without_its_gpu_and_kernel_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not registered.lacking():
        pytest.skip("a GPU and the package kernels are there")
    assert main(["check", "experts:sonicmoe"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "experts:sonicmoe is out of scope: it loads a kernel from a hub" in said
    assert "experts:deepgemm" in out_of_scope()
    monkeypatch.setattr(registered, "lacking", lambda: "")
    assert "experts:sonicmoe@aria" in expand("experts")


def test_the_list_of_adapters_does_not_import_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, registered._INTERFACE)
    assert registered.plugged_in() == ()
    assert "experts:eager" in expand("experts")
    assert registered._INTERFACE not in sys.modules


def test_what_is_no_experts_function_is_no_attribute() -> None:
    """torch's compiler tries the names that it looks for on every module."""
    from moe_routing.implementations import experts

    assert not hasattr(experts, "get_mempool_id")
    assert not hasattr(experts, "eager@no_model")


def test_limits_and_alphas_are_claimed_of_a_clamped_swiglu_alone() -> None:
    computes = Computes(limits=(7.0,), alphas=(1.702,))
    case = ran(activation="clamped-swiglu", limit=0.5, alpha=2.0)
    refused = computes.refusals(case.config, case.inputs)
    assert refused == ["limits=0.5", "alphas=2.0"]
    plain = ran(activation="silu", limit=0.5, alpha=2.0)
    assert computes.refusals(plain.config, plain.inputs) == []
    with pytest.raises(ValueError, match=r"Expected Computes\.limits to be a tuple of permitted"):
        Computes(limits=7.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"each value of Computes\.alphas > 0 but got 0"):
        Computes(alphas=(0,))


@pytest.mark.parametrize("model", MODELS)
def test_what_ends_a_process_on_a_gpu_is_not_claimed_there(model: str) -> None:
    function = registered.function_of("eager")
    absent = {
        device: ExpertsFunction(function, MODELS[model], device).capabilities().computes.absent
        for device in ("cpu", "cuda")
    }
    assert absent == {"cpu": (False, True), "cuda": (False,) if model in RAISES else (False, True)}
