"""Adapters of functions: each that is installed is near the reference, claim by claim."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moe_routing.implementations import (
    AdapterError,
    BackendMissing,
    Capabilities,
    Claim,
    DenseRouting,
    GroupRule,
    Unsupported,
    as_numpy,
    expand,
    load_adapter,
    out_of_scope,
    registered,
)
from moe_routing.implementations.functions import Family
from moe_routing.implementations.permitted import listed
from moe_routing.implementations.protocol import offered
from moe_routing.implementations.reference import ReferenceAdapter
from moe_routing.implementations.tensors import TorchInputs
from moe_routing.reference import (
    FORMATS,
    Groups,
    RmsNorm,
    RouterConfig,
    RouterInputs,
    Routing,
    route,
)

FAMILIES = (
    *("mlx-lm", "vllm", "sglang", "nemo-automodel", "litgpt", "lmdeploy:*", "ibm-fms:*"),
    *("maxtext", "tpu-inference", "keras-hub", "mlx-vlm", "unsloth-zoo", "llm-compressor"),
    *("optimum-habana", "exllamav3:*", "easydel"),
)
SINGLE = (
    *("olmo-core", "mistral-inference", "diffusers"),
    *("megablocks", "llama-models", "fairseq2", "xtuner"),
)
ADAPTERS = [name for each in (*FAMILIES, *SINGLE) for name in expand(each)]
OTHER_BIAS = ("easydel", "lmdeploy:noaux_tc_from_each")
"""Where a selection bias is not read, or is in the weights: known divergences."""
T, H = 5, 16


def experts_of(capabilities: Capabilities) -> int:
    """Eight experts, or sixteen where those are too few, or the fewest that are claimed."""
    claimed = capabilities.limits.experts
    return next((n for n in (8, 16) if claimed is None or n in claimed), 0) or min(claimed or ())


def config_of(claim: Claim, experts: int) -> RouterConfig:
    """A configuration that a claim covers, with all that it may have."""
    return RouterConfig(
        num_experts=experts,
        top_k=max(claim.least_top_k, 2 if 2 in claim.top_k else 1),
        score=claim.score[-1],  # type: ignore[arg-type]
        weights_from=claim.weights_from[-1],  # type: ignore[arg-type]
        groups=groups_of(claim.groups[-1]),
        renormalize=(listed(claim.renormalize) or (None,))[-1],
        scale=(listed(claim.scale) or (2.5,))[-1],
        logit_softcap=2.0 if True in claim.logit_softcap else None,
        input_norm=RmsNorm() if True in claim.input_norm else None,
        logits_dtype=claim.logits_dtype[-1],  # type: ignore[arg-type]
        scores_dtype=claim.scores_dtype[-1],  # type: ignore[arg-type]
        weights_dtype=claim.weights_dtype[-1],  # type: ignore[arg-type]
        shared_slots=(listed(claim.shared_slots) or (None,))[-1],
    )


def groups_of(rule: GroupRule | None) -> Groups | None:
    """Two groups by the rule, of which both give a share, or one is kept."""
    if rule is None:
        return None
    if True in rule.from_each:
        return Groups(count=2, kept=2, from_each=True)
    return Groups(count=2, kept=1, top=max(rule.top), fill=rule.fill[0])


def inputs_of(claim: Claim, capabilities: Capabilities) -> RouterInputs:
    rng, takes, E = np.random.default_rng(3), capabilities.takes, experts_of(capabilities)
    arrays: dict[str, Any] = {"dtype": capabilities.dtypes[0]}
    places = [place for place in claim.selection_bias if place != "none"]
    if places:  # above 0, where routers that fill with 0 and with -inf agree
        bias = abs(rng.normal(size=E)).astype(np.float32)
        arrays |= {"selection_bias": bias, "selection_bias_on": places[0]}
    optional = {"gate_bias": E, "per_expert_scale": E}
    arrays |= {
        name: rng.normal(size=size).astype(np.float32)
        for name, size in optional.items()
        if True in getattr(claim, name) and not (name == "gate_bias" and takes == "logits")
    }
    if True in claim.input_norm:
        arrays["hidden_scale"] = rng.normal(size=H).astype(np.float32)
    if takes == "logits":
        return RouterInputs.from_logits(rng.normal(size=(T, E)).astype(np.float32), **arrays)
    narrow = FORMATS[capabilities.dtypes[0]].round
    hidden, gate = (narrow(rng.normal(size=(rows, H)).astype(np.float32)) for rows in (T, E))
    return RouterInputs(hidden=hidden, gate_weight=gate, **arrays)


@pytest.mark.parametrize("name", ADAPTERS)
def test_near_the_reference_claim_by_claim(name: str) -> None:
    adapter: Any = load_adapter(name)
    for claim in adapter.capabilities().claims:
        if name.startswith(OTHER_BIAS) and claim.selection_bias != ("none",):
            continue
        capabilities = adapter.capabilities()
        config = config_of(claim, experts_of(capabilities))
        inputs = inputs_of(claim, capabilities)
        try:
            answer = adapter.route(config, inputs)
        except BackendMissing as error:
            pytest.skip(str(error))
        wanted = route(config, inputs)
        if adapter.capabilities().promises.slots == "descending":
            assert as_numpy(answer.expert_ids).tolist() == wanted.expert_ids.tolist(), claim
        ids, weights = by_expert(answer)
        wanted_ids, wanted_weights = by_expert(wanted)
        assert ids.tolist() == wanted_ids.tolist(), claim
        close = 1e-3 if inputs.dtype == "float32" else 2e-2
        np.testing.assert_allclose(weights, wanted_weights, rtol=close, atol=1e-6)


def by_expert(routing: Routing | DenseRouting) -> tuple[Any, Any]:
    """The ids and the weights of every token, in the order of the experts."""
    if isinstance(routing, DenseRouting):
        table = as_numpy(routing.weights)
        rows, ids = np.nonzero(table)
        return ids.reshape(len(table), -1), table[rows, ids].reshape(len(table), -1)
    ids = as_numpy(routing.expert_ids)
    order = ids.argsort(axis=1)
    return np.take_along_axis(ids, order, 1), np.take_along_axis(
        as_numpy(routing.weights), order, 1
    )


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_is_not_claimed_is_refused_without_the_package(name: str) -> None:
    adapter: Any = load_adapter(name)
    inputs = RouterInputs(
        hidden=np.ones((1, 1), np.float32), gate_weight=np.ones((2, 1), np.float32)
    )
    with pytest.raises(Unsupported):
        adapter.route(RouterConfig(num_experts=2, top_k=1, logit_softcap=2.0, scale=7.0), inputs)


def test_names_of_what_has_none_are_told_with_the_reason() -> None:
    for name in ("vllm:phimoe", "mlx-lm:muse_spark", "flashinfer:trtllm_gen_routing"):
        assert name in out_of_scope()
        with pytest.raises(AdapterError, match="is out of scope: "):
            load_adapter(name)


def test_a_family_adds_and_names_its_adapters() -> None:
    family = Family("mine", "nothing")

    @family.function(Claim.plain())
    def gate(config: RouterConfig, given: Any) -> Any:
        return given.hidden

    assert family.members == ("gate",)
    assert gate().name == "mine:gate"
    with pytest.raises(AttributeError, match="mine has no adapter 'other'"):
        family.made("other")


def test_every_adapter_is_registered_once() -> None:
    assert len(set(ADAPTERS)) == len(ADAPTERS)
    assert set(ADAPTERS) <= set(registered())


def test_gradients_of_a_family_are_those_of_its_own_calls() -> None:
    torch: Any = pytest.importorskip("torch")
    family = Family("toy", "torch")

    @family.function(Claim.plain(), takes="logits", differentiable=True)
    def softmax(config: RouterConfig, given: TorchInputs) -> Routing:
        weights, ids = torch.topk(torch.softmax(given.logits.float(), dim=1), config.top_k)
        return Routing(weights=weights, expert_ids=ids)

    adapter: Any = softmax()
    config, cotangent = RouterConfig(num_experts=3, top_k=2), np.eye(3, dtype=np.float32)
    inputs = RouterInputs.from_logits(np.array([[0, 1, 3], [2, 1, 0], [1, 3, 0]], np.float32))
    found = adapter.gradients(config, inputs, cotangent)
    wanted = ReferenceAdapter().gradients(config, inputs, cotangent)
    assert offered(adapter) == ("route", "gradients")
    np.testing.assert_allclose(found.logits, wanted.logits, rtol=1e-6, atol=1e-7)
