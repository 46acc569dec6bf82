"""What it costs to judge a layer's experts, next to the eager layer of transformers."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from bench_clocks import Benchmark, place

from moe_routing.conformance.calls.experts import ExpertsCase
from moe_routing.conformance.generators.experts import Draft
from moe_routing.conformance.judge.experts import Layer
from moe_routing.implementations import load_adapter
from moe_routing.implementations.experts.adapter import run
from moe_routing.reference import ExpertsConfig
from moe_routing.reference.formats import INPUT_FORMATS

SIZES = ((1024, 64, 8, 1024, 512), (256, 8, 2, 2048, 1024), (16, 64, 8, 1024, 512))
EAGER, POINT, WHOLE = "transformers' eager", "the judge", "the whole radius of every output"


@cache
def case(size: tuple[int, ...], dtype: str, *, gated: bool = True) -> ExpertsCase:
    """Return a call of experts with SiLU."""
    tokens, experts, top_k, hidden, width = size
    rng = np.random.default_rng(0)
    ids = np.argsort(rng.random((tokens, experts)), axis=1)[:, :top_k]
    sizes = {"H": hidden, "F": width}
    config = ExpertsConfig(num_experts=experts, gated=gated)
    return Draft(rng, config, INPUT_FORMATS[dtype], "normal", sizes).case(ids)


def eager(made: ExpertsCase) -> Any:
    """Return what calls the eager layer, its module built."""
    adapter: Any = load_adapter(
        "experts:eager" if made.config.gated else "experts:eager@nemotron_h"
    )
    module = adapter._model.build(made.config, made.inputs, "cpu")
    module._is_expert_parallel = False
    return lambda: run(adapter._function.run, module, made.inputs, "cpu")


@pytest.mark.parametrize("what", [EAGER, POINT, WHOLE])
@pytest.mark.parametrize("dtype", INPUT_FORMATS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_layer(benchmark: Benchmark, size: tuple[int, ...], dtype: str, what: str) -> None:
    pytest.importorskip("transformers")
    made = case(size, dtype)
    call = eager(made)
    answer = call().double().numpy()
    calls = {
        EAGER: call,
        POINT: lambda: Layer(made.config, made.inputs).permits(answer),
        WHOLE: lambda: Layer(made.config, made.inputs).output.contains(answer),
    }
    sizes = "T={} E={} K={} H={} F={}".format(*size)
    place(benchmark, f"A layer's experts, judged: {sizes}", what, dtype)
    if what == EAGER:
        benchmark(calls[what])
    else:
        benchmark.extra_info["over"] = EAGER
        assert benchmark.pedantic(calls[what], rounds=3).all()
