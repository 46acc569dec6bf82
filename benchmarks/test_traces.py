"""What it costs to judge a recorded token: routers of models, records of two dtypes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bench_clocks import Benchmark, place

from moe_routing.conformance.traces.blocks import WRONG, Evidence, judge_block
from moe_routing.conformance.traces.router import Router
from moe_routing.reference import RouterInputs, preset, route
from moe_routing.reference.formats import FORMATS

TOKENS, BLOCK = 8192, 2**16
"""The tokens of a trace, and the logits of a block of them, as the walk has it."""


@pytest.mark.parametrize("recorded", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", ["qwen3_moe", "olmoe", "mixtral", "deepseek_v3", "dbrx"])
def test_the_record_of_a_model(benchmark: Benchmark, model: str, recorded: str) -> None:
    """The router computes in float32, but for that of dbrx; its logits are recorded rounded."""
    config = replace(preset(model).config, logits_dtype="float32")
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((TOKENS, config.num_experts)).astype(np.float32)
    bias = preset(model).selection_bias and np.full(config.num_experts, 0.1, np.float32)
    answer = route(config, RouterInputs.from_logits(logits, selection_bias=bias))
    form = FORMATS[recorded]
    held = form.round(logits).astype(np.float32)
    weights = FORMATS["float32"].round(answer.weights)
    router = Router(
        config=config,
        dtypes=("bfloat16",) if recorded == "bfloat16" else ("float32",),
        logits=form,
        weights=FORMATS["float32"],
        own_logits=form,
        own_weights=FORMATS["float32"],
        selection_bias=bias,
    )
    size = BLOCK // config.num_experts
    parts = [slice(at, at + size) for at in range(0, TOKENS, size)]

    def judged() -> int:
        marks = [
            judge_block(router, answer.expert_ids[p], Evidence(logits=held[p]), weights[p])
            for p in parts
        ]
        return sum(int((each.state == WRONG).sum()) for each in marks)

    routes = TOKENS * config.top_k
    place(benchmark, "A trace, judged", f"{model}, {routes} routes", f"logits {recorded}")
    assert benchmark(judged) == 0
