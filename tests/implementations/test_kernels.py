"""Adapters of GPU kernels: what they claim, and the one line where they cannot run."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance.events.again import cases_of
from moe_routing.conformance.events.registry import EVENTS
from moe_routing.implementations import (
    BackendMissing,
    Unsupported,
    expand,
    flashinfer,
    liger,
    load_adapter,
    registered,
    sglang_kernels,
    sonic_moe,
    sonic_moe_experts,
    transformer_engine,
    vllm_kernels,
)
from moe_routing.reference import RouterInputs

torch = pytest.importorskip("torch")

ROUTERS = {
    "flashinfer": flashinfer.NEEDS_GPU,
    "transformer-engine": transformer_engine.ROUTER.members,
    "sglang": sglang_kernels.KERNELS.members,
    "vllm": vllm_kernels.KERNELS.members,
}
ROUTES = [f"{family}:{name}" for family, names in ROUTERS.items() for name in names]
SORTS = ["liger", "sonic-moe", "vllm:moe_align_block_size", "vllm:moe_prepare_scatter"]
EXPERTS = ["liger", "sonic-moe"]
LOSSES = ["transformer-engine:aux_loss"]
PER_TOKEN = ("logits", "token_ids", "hidden", "gate_weight")
EVENTS_OF = {
    "permute": "permuted-several",
    "experts": "ran-activation:silu",
    "balance": "balanced-by-softmax",
}
NAMES_OF = {"permute": SORTS, "experts": EXPERTS, "balance": LOSSES}
NOT_ROUTING = [(method, name) for method, names in NAMES_OF.items() for name in names]


def case_of(event: str, capabilities: Any) -> Any:
    """The first case that an event constructs within what is claimed."""
    return next(iter(EVENTS[event].cases(capabilities)))


@pytest.mark.parametrize("name", ROUTES)
def test_a_router_without_a_gpu_says_so_in_one_line(name: str) -> None:
    adapter: Any = load_adapter(name)
    case = next(iter(cases_of("any-case", adapter.capabilities())))
    with pytest.raises(BackendMissing, match=f"^{name} is a kernel that needs a GPU: add --dev"):
        adapter.route(case.config, case.inputs)


@pytest.mark.parametrize(("method", "name"), NOT_ROUTING)
def test_what_runs_given_routes_says_so_as_well(method: str, name: str) -> None:
    adapter: Any = load_adapter(name)
    case = case_of(EVENTS_OF[method], adapter.capabilities())
    with pytest.raises(BackendMissing, match=f"^{name} is a kernel that needs a GPU: add --dev"):
        getattr(adapter, method)(case.config, case.inputs)


@pytest.mark.parametrize("name", [*ROUTES, *SORTS, *EXPERTS, *LOSSES])
def test_each_is_registered_and_takes_the_device(name: str) -> None:
    adapter: Any = load_adapter(name, device="cuda")
    assert (adapter.name, adapter.device) == (name, "cuda")
    assert name in registered()


@pytest.mark.parametrize("name", ROUTES)
def test_an_empty_batch_is_refused_where_a_kernel_cannot_be_launched_for_nothing(name: str) -> None:
    adapter: Any = load_adapter(name)
    capabilities = adapter.capabilities()
    case = next(iter(cases_of("any-case", capabilities)))
    arrays = {key: each for key, each in case.inputs.arrays().items() if key not in PER_TOKEN}
    nothing = np.zeros((0, case.config.num_experts), np.float32)
    if "expert_table" in arrays:
        arrays["token_ids"] = np.zeros(0, np.int64)
    inputs = RouterInputs.from_logits(nothing, selection_bias_on="gate", **arrays)
    expected = Unsupported if capabilities.limits.min_tokens else BackendMissing
    with pytest.raises(expected):
        adapter.route(case.config, inputs)


PACKAGES = {
    "flashinfer": (flashinfer._module, "hash_topk", flashinfer.INSTALL),
    "sglang": (sglang_kernels.module_of, "moe_fused_gate", sglang_kernels.INSTALL),
    "transformer_engine": (transformer_engine._functions, None, transformer_engine.INSTALL),
    "liger_kernel": (liger._module, None, liger.INSTALL),
    "sonicmoe": (sonic_moe._module, None, sonic_moe.INSTALL),
    "vllm": (vllm_kernels.operations, None, vllm_kernels.INSTALL),
}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_that_is_missing_is_told_with_its_install_line(package: str) -> None:
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    load, name, install = PACKAGES[package]
    with pytest.raises(BackendMissing) as told:
        load(name) if name else load()
    assert str(told.value).startswith(f"{package} is not installed")
    assert str(told.value).endswith(install)


def test_sonic_moe_runs_experts_where_the_packages_of_its_products_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sorts: Any = load_adapter("sonic-moe", device="cuda")
    assert "experts" not in sorts.methods or importlib.util.find_spec("quack")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    whole: Any = load_adapter("sonic-moe", device="cuda")
    assert whole.methods == ("permute", "experts")
    monkeypatch.undo()
    if importlib.util.find_spec("sonicmoe") is None:
        with pytest.raises(BackendMissing, match=r"^sonic-moe is not installed: .*cutlass-dsl"):
            sonic_moe_experts._kernels()


@pytest.mark.parametrize("family", ["sglang", "vllm"])
def test_a_familys_name_leaves_kernels_out_on_a_cpu_and_has_them_on_a_gpu(family: str) -> None:
    kernels = {f"{family}:{name}" for name in ROUTERS[family]}
    assert expand(family)
    assert not kernels & set(expand(family))
    assert expand(min(kernels)) == [min(kernels)], "one that is named is not left out"
    assert len(expand("flashinfer")) == len(flashinfer.MEMBERS), "there is nothing else"
    assert kernels <= set(expand(family, device="cuda"))


@pytest.mark.parametrize("name", ["scattermoe@gpt_oss", "scattermoe@lora", "liger"])
def test_experts_that_are_compiled_for_every_size_claim_few(name: str) -> None:
    adapter: Any = load_adapter(name, device="cuda")
    computes = adapter.capabilities().computes
    assert (computes.hidden_multiple_of, computes.width_multiple_of) == (16, 32)
    assert computes.products == "tf32"
    assert name == "liger" or (computes.max_experts or 0) <= 8 >= (computes.max_top_k or 0)
