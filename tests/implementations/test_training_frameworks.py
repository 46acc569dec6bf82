"""The training frameworks' routers, checked by the judge: megatron-core, torchtitan, deepspeed.

What they diverge in is listed in ``implementations/known/``, where ``test_known_shipped.py``
holds it to its witnesses; here everything else must be right, and what docs/findings.md says
besides the lists must be true.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from importlib import import_module, metadata
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, seed, settings

from moe_routing.conformance import Divergence, load_known
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.explain.failure import first_failure
from moe_routing.conformance.generators.strategies import routing_cases
from moe_routing.conformance.trial.trial import Trial
from moe_routing.implementations import (
    Adapter,
    BackendMissing,
    Unsupported,
    load_adapter,
    shipped_known,
)
from moe_routing.reference import PRESETS, Renormalize, RouterConfig, RouterInputs, preset, route

torch = pytest.importorskip("torch")

STAGES = ("logits", "selection", "weights")
MODULES = {
    "megatron-core": "megatron.core.transformer.moe.moe_utils",
    "torchtitan": "torchtitan.models.common.moe",
    "deepspeed:topk_gate": "deepspeed.moe.sharded_moe",
    "deepspeed:ep_router": "deepspeed.moe.ep_router",
}
"""Each adapter, and the module whose code it runs."""
KNOWN = [entry for path in shipped_known() for entry in load_known(path)]
BAD = ("groups.ragged-rejected", "robustness.rejects-bad-config")

DEEPSEEK_V3 = ["deepseek_v3", "deepseek_v32", "kimi_k2", "kimi_k25", "kimi_linear", "dots1"]
NODES = [*DEEPSEEK_V3, "glm4_moe", "glm4_moe_lite", "glm4v_moe_text", "glm_moe_dsa", "nemotron_h"]
PLAIN = ["qwen2_moe", "olmoe", "flex_olmo", "jamba"]
SUMMED = ["mixtral", "qwen3_moe", "qwen3_5_moe_text"]
SERVES = {
    "megatron-core": ["deepseek_v2_lite", "aria_text", *NODES],
    "torchtitan": [*PLAIN, *SUMMED, "deepseek_v2_lite", "longcat_flash", *NODES],
    "deepspeed:ep_router": [
        *PLAIN,
        *SUMMED,
        "minimax_m3_vl_text",
        "deepseek_v2",
        "deepseek_v2_lite",
        *NODES,
    ],
}
"""Some of the presets that each claims."""


@cache
def adapter(name: str) -> Adapter:
    found = load_adapter(name)
    try:
        metadata.version(found.wraps)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{found.wraps} is not installed")
    return found


def known(name: str) -> list[Divergence]:
    """The divergences of an adapter that show in answers, rather than in what it rejects."""
    return [entry for entry in KNOWN if name in entry.adapters and entry.clause not in BAD]


def excused(name: str, trial: Trial) -> bool:
    return any(entry.covers(trial.bounds, trial.case) for entry in known(name))


@pytest.mark.parametrize("name", MODULES)
def test_routes_as_specified(name: str) -> None:
    router = adapter(name)

    @seed(name)
    @settings(
        max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=routing_cases(router.capabilities()))
    def check(case: Case) -> None:
        trial = Trial(router, case)
        assume(not excused(name, trial))
        wrong = first_failure(trial.verdict, *STAGES)
        assert wrong is None, f"{wrong.summary} at {case.size}, {case.config}"

    check()


@pytest.mark.parametrize("model", sorted(PRESETS))
@pytest.mark.parametrize("name", SERVES)
def test_agrees_with_the_presets_that_it_claims(name: str, model: str) -> None:
    router = adapter(name)
    case = published(model, "block" if name == "torchtitan" else "gate")
    if not router.capabilities().admits(case.config, case.inputs):
        assert model not in SERVES[name], "no longer claimed"
        return
    trial = Trial(router, case)
    if not excused(name, trial):
        wrong = first_failure(trial.verdict, *STAGES)
        assert wrong is None, wrong.summary
        assert trial.verdict.decided.all(), "random normals leave no weight open"


def published(model: str, bias_on: str, tokens: int = 40) -> Case:
    """Random logits at the published sizes of ``model``, in float32."""
    chosen, rng = preset(model), np.random.default_rng(20)
    arrays: dict[str, Any] = {}
    experts, top_k = chosen.config.num_experts, chosen.config.top_k
    if chosen.selection_bias:
        bias = rng.normal(0.0, 0.1, experts).astype(np.float32)
        arrays |= {"selection_bias": bias, "selection_bias_on": bias_on}
    if chosen.per_expert_scale:
        arrays["per_expert_scale"] = np.ones(experts, np.float32)
    if chosen.expert_table:
        arrays["expert_table"] = np.arange(top_k)[None]
        arrays["token_ids"] = np.zeros(tokens, np.int64)
    logits = rng.normal(0.0, 2.0, (tokens, experts)).astype(np.float32)
    return Case(config=chosen.config, inputs=RouterInputs.from_logits(logits, **arrays))


@pytest.mark.parametrize("name", MODULES)
def test_says_how_to_get_what_is_missing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, MODULES[name], None)
    router = load_adapter(name)
    given = RouterInputs.from_logits([[1.0, 0.0]])
    narrow = {f"{stage}_dtype": "input" for stage in ("scores", "weights")}
    config = RouterConfig(num_experts=2, top_k=1, **(narrow if name == "megatron-core" else {}))
    words = f"{router.wraps} is not installed: python -m pip install .*{router.wraps}==[0-9.]+"
    with pytest.raises(BackendMissing, match=f"^{words}"):
        router.route(config, given)


@pytest.mark.parametrize(("top_k", "claimed"), [(1, None), (2, Renormalize(eps=1e-20))])
def test_megatron_renormalizes_from_two_experts_on(top_k: int, claimed: Renormalize | None) -> None:
    given = RouterInputs.from_logits([[1.0, 0.0, 2.0]])
    router = adapter("megatron-core")
    for rule in (None, Renormalize(eps=1e-20)):
        config = RouterConfig(num_experts=3, top_k=top_k, score="sigmoid", renormalize=rule)
        if rule == claimed:
            verdict = Trial(router, Case(config=config, inputs=given)).verdict
            assert first_failure(verdict, *STAGES) is None
        else:
            with pytest.raises(Unsupported, match="not claimed"):
                router.route(config, given)


class TestFindings:
    """What docs/findings.md says besides the known divergences."""

    def test_megatron_sends_a_quarter_of_deepseek_v2_elsewhere(self) -> None:
        case = published("deepseek_v2", "gate", tokens=1000)
        groups = case.config.groups
        assert groups is not None
        summed = replace(groups, top=case.config.top_k // groups.kept)  # as it claims them
        claimed = replace(case, config=replace(case.config, groups=summed))
        answer = Trial(adapter("megatron-core"), claimed).received.answer
        right = np.sort(route(case.config, case.inputs).expert_ids, axis=1)
        other = (np.sort(answer.expert_ids, axis=1) != right).any(axis=1).mean()
        assert 0.2 < other < 0.3, other

    def test_megatron_has_no_gate_without_transformer_engine(self) -> None:
        adapter("megatron-core")
        moe = import_module(MODULES["megatron-core"])
        if moe.HAVE_TE:
            pytest.skip("transformer_engine is installed")
        with pytest.raises(NameError, match="te_general_gemm"):
            moe.router_gating_linear(torch.ones(1, 2), torch.ones(3, 2), None, torch.float32)

    def test_torchtitan_computes_in_the_input_dtype_on_a_cpu(self) -> None:
        adapter("torchtitan")
        moe = import_module(MODULES["torchtitan"])
        gate = moe.Linear.Config(in_features=2, out_features=3)
        router = moe.TokenChoiceTopKRouter.Config(num_experts=3, gate=gate).build().bfloat16()
        with pytest.warns(UserWarning, match="CPU autocast"):
            weights, _, scores = router(torch.ones(1, 1, 2, dtype=torch.bfloat16))
        assert weights.dtype == scores.dtype == torch.bfloat16

    def test_deepspeed_refuses_few_tokens_that_it_would_not_drop(self) -> None:
        adapter("deepspeed:topk_gate")
        gate = import_module(MODULES["deepspeed:topk_gate"]).TopKGate(2, 3, 1, drop_tokens=False)
        with pytest.raises(AssertionError, match="min_capacity"):
            gate(torch.ones(7, 2))
        gate(torch.ones(8, 2))
