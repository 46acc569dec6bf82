"""The routers of mlx-vlm that mlx-lm does not have, run as those of mlx-lm are."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

from moe_routing.implementations.capabilities import Limits
from moe_routing.implementations.functions import Family, FunctionRouter
from moe_routing.implementations.lone_modules import lone_module
from moe_routing.implementations.mlx_lm.blocks import Row, library, mlx_inputs
from moe_routing.implementations.mlx_lm.needs import LINEAR, SUM, SUM_EPS, needs, rounded, v3
from moe_routing.implementations.permitted import ANY

INSTALL = "python -m pip install 'mlx[cpu]' && python -m pip install --no-deps mlx-vlm==0.7.10"
FAMILY = Family("mlx-vlm", "mlx-vlm", arrays=mlx_inputs)


@cache
def _model(name: str) -> ModuleType:
    library("mlx.core")
    whole = f"mlx_vlm.models.{name}"
    real = [f"{whole}.config", "mlx_vlm.models.mlp", "mlx_vlm.models.switch_layers"]
    return lone_module(f"{whole}.language", install=INSTALL, real=real)


_HERE: dict[str, Any] = {"module": _model}
_GROUPED: dict[str, Any] = {"capabilities": {"limits": Limits(min_group_size=2)}, **_HERE}

ROWS = (
    Row(name="glm4v_moe", block="glm4v_moe.MoEGate", claims=v3("glm4v_moe_text"), **_GROUPED),
    Row(name="kimi_vl", block="kimi_vl.MoEGate", claims=v3("kimi_k2"), **_GROUPED),
    Row(
        name="qwen3_vl_moe",
        block="qwen3_vl_moe.Qwen3VLMoESparseMoeBlock",
        claims=rounded("qwen3_vl_moe_text", renormalize=(None, SUM)),
        **LINEAR,
        **_HERE,
    ),
    Row(
        name="step3p7",
        block="step3p7.MoEGate",
        claims=needs("step3p5", renormalize=(None, SUM_EPS), scale=ANY),
        gate="gate.weight",
        bias="router_bias",
        **_HERE,
    ),
    Row(
        name="flint",
        block="flint.SparseMoeBlock",
        claims=needs("flint", renormalize=(SUM_EPS,), selection_bias=("none", "block")),
        bias="expert_bias",
        settings={"shared_expert_intermediate_size": 0},
        **LINEAR,
        **_HERE,
    ),
    Row(
        name="gemma4",
        block="gemma4.Router",
        claims=needs("gemma4_text", scores_dtype=("input",)),
        gate="proj.weight",
        others={"scale": "hidden_scale", "per_expert_scale": "per_expert_scale"},
        **_HERE,
    ),
)
for _row in ROWS:
    _row.add_to(FAMILY)

MEMBERS = FAMILY.members
OUT_OF_SCOPE = {"inkling": "its weights are normalised together with those of shared experts"}


def __getattr__(name: str) -> FunctionRouter:
    return FAMILY.made(name)  # type: ignore[return-value]
