"""Whole blocks of transformers' models: right, and in the widths that a case has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from near_layers import composed

from moe_routing.conformance.cases.kinds import trial_of
from moe_routing.conformance.generators.choices import seeded
from moe_routing.conformance.generators.layer import choose_layer_case
from moe_routing.implementations import Unsupported, load_adapter

pytest.importorskip("transformers")
BLOCKS = ("mixtral", "qwen3_moe", "qwen2_moe", "qwen3_next", "deepseek_v3", "glm4_moe", "dots1")


def of_several_experts(adapter: Any, seeds: range) -> list[Any]:
    """Return drawn cases, but those of groups of one, which the models cannot route."""
    drawn = [choose_layer_case(seeded(seed), adapter.capabilities()) for seed in seeds]
    groups = [case.config.router.groups for case in drawn]
    sizes = [each.config.router.num_experts for each in drawn]
    alone = [g is not None and size < 2 * g.count for g, size in zip(groups, sizes, strict=True)]
    return [case for case, lone in zip(drawn, alone, strict=True) if not lone]


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_is_right_and_says_how_it_routed(name: str) -> None:
    adapter: Any = load_adapter(f"transformers:{name}")
    cases = of_several_experts(adapter, range(12))
    assert len(cases) > 2
    for case in cases:
        trial: Any = trial_of(adapter, case, "layer")
        assert not trial.wrong.any(), case.config
        assert trial.verdict.right, case.config


def test_a_shared_expert_of_another_width_is_unsupported() -> None:
    adapter: Any = load_adapter("transformers:deepseek_v3")
    groups = adapter.capabilities().claims[0].groups[0]
    assert groups is not None
    case = composed(shared="plural")
    with pytest.raises(Unsupported, match="not claimed"):
        adapter.layer(case.config, case.inputs)
    drawn = of_several_experts(adapter, range(12))[0]
    wider = {
        "shared_gate_proj": np.ones((drawn.inputs.width + 1, drawn.inputs.hidden_size), np.float32),
        "shared_up_proj": np.ones((drawn.inputs.width + 1, drawn.inputs.hidden_size), np.float32),
        "shared_down_proj": np.ones((drawn.inputs.hidden_size, drawn.inputs.width + 1), np.float32),
    }
    with pytest.raises(Unsupported, match=r"is no multiple of F="):
        adapter.layer(drawn.config, replace(drawn.inputs, **wider))
