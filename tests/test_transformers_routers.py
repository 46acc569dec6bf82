"""The model authors' own routers, as transformers ships them, held to the judge."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings

from moe_routing.conformance.case import Case
from moe_routing.conformance.generators import routing_cases
from moe_routing.conformance.judge import Answer, Bounds, Verdict, judge
from moe_routing.implementations import ANY, Capabilities, Claim, GroupRule, Numerics, torch_inputs
from moe_routing.reference import Groups, Renormalize, RouterConfig, RouterInputs

torch = pytest.importorskip("torch")
pytest.importorskip("transformers", minversion="5.23")

SUM, SUM_EPS, SUM_FLOOR = Renormalize(), Renormalize(eps=1e-20), Renormalize(floor=1e-12)
TOP_2 = GroupRule(top=(2,), fill=(-math.inf,))
TOP_2_ZERO = GroupRule(top=(2,), fill=(0.0,))
BEST_ZERO = GroupRule(top=(1,), fill=(0.0,))
NATIVE_LOGITS = {"logits_dtype": ("input",)}
CAST_BACK = {**NATIVE_LOGITS, "weights_dtype": ("input",)}
NATIVE = {**CAST_BACK, "scores_dtype": ("input",)}


def claim(score: str, *renormalize: Renormalize | None, **axes: Any) -> Claim:
    """Claim one family: float32 throughout and no optional part, but for ``axes``."""
    plain: dict[str, Any] = {
        "weights_from": ("scores",),
        "groups": (None,),
        "scale": (1.0,),
        "selection_bias": ("none",),
    }
    plain |= dict.fromkeys(("logits_dtype", "scores_dtype", "weights_dtype"), ("float32",))
    absent = ("logit_softcap", "logit_multiplier", "input_norm", "gate_bias", "gate_delta")
    plain |= dict.fromkeys((*absent, "per_expert_scale", "expert_table"), (False,))
    return Claim(score=(score,), renormalize=renormalize, **{**plain, **axes})


@dataclass(frozen=True, kw_only=True)
class Family:
    """One model type: what its router does, and how its modules are made and filled.

    ``prefix`` begins its class names and ``block`` ends that of its MoE block; ``gate`` is
    the router's place in the block, ``weight`` and ``bias`` those of its arrays, and
    ``fields`` makes the settings of its configuration class. ``diverges`` tells the cases
    that ``docs/findings.md`` writes up, which the generated test leaves out.
    """

    claims: tuple[Claim, ...]
    prefix: str
    block: str = "SparseMoeBlock"
    gate: str = "gate"
    weight: str = "gate.weight"
    bias: str = ""
    fields: Callable[[RouterConfig], dict[str, Any]]
    diverges: Callable[[Case], bool] = lambda case: False

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(claims=self.claims, logits="routed")


def routed(config: RouterConfig) -> dict[str, Any]:
    return {"n_routed_experts": config.num_experts, "num_experts_per_tok": config.top_k}


def local(config: RouterConfig) -> dict[str, Any]:
    return {"num_local_experts": config.num_experts, "num_experts_per_tok": config.top_k}


def grouped(config: RouterConfig) -> dict[str, Any]:
    return routed(config) | {
        "n_group": config.groups.count,
        "topk_group": config.groups.kept,
        "norm_topk_prob": config.renormalize is not None,
        "routed_scaling_factor": float(config.scale),
    }


def deepseek_v2(config: RouterConfig) -> dict[str, Any]:
    scale = {"routed_scaling_factor": float(config.scale)}
    if config.groups is None:
        return routed(config) | scale | {"topk_method": "greedy"}
    return grouped(config) | {"topk_method": "group_limited_greedy"}


V3 = claim(
    "sigmoid", SUM_EPS, None, groups=(TOP_2,), scale=ANY, selection_bias=("none", "gate")
)
FAMILIES = {
    "qwen3_moe": Family(
        claims=(claim("softmax", SUM, None, **CAST_BACK),),
        prefix="Qwen3Moe",
        fields=lambda c: {
            "num_experts": c.num_experts,
            "num_experts_per_tok": c.top_k,
            "norm_topk_prob": c.renormalize is not None,
        },
    ),
    "mixtral": Family(
        claims=(claim("softmax", SUM, **NATIVE_LOGITS),), prefix="Mixtral", fields=local
    ),
    "hunyuan_v1_moe": Family(
        claims=(claim("softmax", SUM),),
        prefix="HunYuanMoEV1",
        block="Moe",
        weight="gate.wg.weight",
        fields=lambda c: {"num_experts": c.num_experts, "moe_topk": c.top_k},
    ),
    "ernie4_5_moe": Family(
        claims=(
            claim(
                "softmax", SUM_FLOOR, weights_dtype=("input",), selection_bias=("none", "statics")
            ),
        ),
        prefix="Ernie4_5_Moe",
        bias="gate.moe_statics.e_score_correction_bias",
        fields=lambda c: {"moe_num_experts": c.num_experts, "moe_k": c.top_k},
    ),
    "deepseek_v2": Family(
        claims=(
            claim("softmax", None, scale=ANY),
            claim(
                "softmax", None, scale=ANY, groups=(BEST_ZERO,), weights_from=("masked_scores",)
            ),
        ),
        prefix="DeepseekV2",
        block="Moe",
        fields=deepseek_v2,
    ),
    "mistral4": Family(
        claims=(claim("softmax", SUM_EPS, None, groups=(TOP_2_ZERO,), scale=ANY, **NATIVE),),
        prefix="Mistral4",
        block="MoE",
        fields=grouped,
    ),
    "deepseek_v3": Family(
        claims=(V3,),
        prefix="DeepseekV3",
        block="MoE",
        bias="gate.e_score_correction_bias",
        fields=grouped,
    ),
    "glm4_moe": Family(
        claims=(V3,),
        prefix="Glm4Moe",
        block="MoE",
        bias="gate.e_score_correction_bias",
        fields=grouped,
    ),
    "minimax_m2": Family(
        claims=(claim("sigmoid", SUM, selection_bias=("none", "block"), **NATIVE_LOGITS),),
        prefix="MiniMaxM2",
        bias="e_score_correction_bias",
        fields=local,
    ),
    "gpt_oss": Family(
        claims=(
            claim(
                "identity",
                None,
                weights_from=("softmax_of_selected",),
                gate_bias=(False, True),
                **NATIVE,
            ),
        ),
        prefix="GptOss",
        block="MLP",
        gate="router",
        weight="router.weight",
        bias="router.bias",
        fields=local,
    ),
}
TINY = {
    "vocab_size": 4,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "intermediate_size": 1,
    "moe_intermediate_size": 1,
}


def run(model_type: str, case: Case) -> Verdict:
    """Route ``case`` with the block's own router, and judge what it answers."""
    family = FAMILIES[model_type]
    given_ = torch_inputs(case.inputs)
    block = load_block(model_type, case)
    state = {**dict(block.named_parameters()), **dict(block.named_buffers())}
    bias = given_.gate_bias if model_type == "gpt_oss" else given_.selection_bias
    with torch.no_grad():
        state[family.weight].copy_(given_.gate_weight)
        if bias is not None:
            state[family.bias].copy_(bias.view_as(state[family.bias]))
        extra = (block.e_score_correction_bias,) if model_type == "minimax_m2" else ()
        logits, weights, ids = getattr(block, family.gate)(given_.hidden, *extra)
    answer = Answer(
        weights=weights.double().numpy(),
        expert_ids=ids.numpy(),
        logits=logits.double().numpy(),
        weights_dtype=str(weights.dtype).removeprefix("torch."),
        logits_dtype=str(logits.dtype).removeprefix("torch."),
    )
    return judge(Bounds(case.config, case.inputs, Numerics()), answer, logits="routed")


def load_block(model_type: str, case: Case) -> Any:
    """Build the MoE block in the dtypes that ``from_pretrained`` would give it.

    It builds the model under the requested default dtype, and then casts up what the model
    class lists: for bfloat16 and float16 the strict list, for float16 the other as well.
    """
    family, modeling = FAMILIES[model_type], f"transformers.models.{model_type}"
    dtype = getattr(torch, case.inputs.dtype)
    made = getattr(import_module(f"{modeling}.configuration_{model_type}"), f"{family.prefix}Config")
    classes = import_module(f"{modeling}.modeling_{model_type}")
    config = made(**TINY, hidden_size=case.inputs.hidden_size, **family.fields(case.config))
    with default_dtype(dtype):
        block = getattr(classes, family.prefix + family.block)(config).eval()
    model = getattr(classes, f"{family.prefix}PreTrainedModel")
    kept = set(model._keep_in_fp32_modules_strict or ())
    kept |= set(model._keep_in_fp32_modules or ()) if dtype == torch.float16 else set()
    state = {**dict(block.named_parameters()), **dict(block.named_buffers())}
    for name, tensor in state.items():
        if any(part in f"mlp.{name}" for part in kept):
            tensor.data = tensor.data.float()
    return block


@contextmanager
def default_dtype(dtype: Any) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
