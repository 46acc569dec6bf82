"""Print what it costs to judge gradients, next to torch's forward and backward pass, by size.

    OMP_NUM_THREADS=1 python benchmarks/gradient_cost.py [SECONDS]

SECONDS are those of each row, 2 by default; from 5 on a larger call is measured as well.

Processor time, one thread, memory kept as a worker of a run keeps it. Calls of torch and of the
judge take turns, and the least of each counts: on a machine that does other work as well, it is
what the call costs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from moe_routing.conformance.calls.gradients import GradientCase
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.generators.expert_gradients import (
    with_cotangent as with_expert_cotangent,
)
from moe_routing.conformance.generators.experts import Draft
from moe_routing.conformance.generators.gradients import with_cotangent
from moe_routing.conformance.run.isolation.heap import keep_freed_memory
from moe_routing.conformance.trial.expert_gradients import ExpertGradientTrial
from moe_routing.conformance.trial.gradients import GradientTrial
from moe_routing.implementations import load_adapter
from moe_routing.reference import (
    ExpertsConfig,
    Groups,
    Renormalize,
    RouterConfig,
    RouterInputs,
)
from moe_routing.reference.formats import INPUT_FORMATS

SIZES = ((16, 8, 2, 64), (64, 64, 8, 64), (128, 128, 8, 1024), (1024, 128, 8, 2048))
LARGE = (8192, 256, 8, 2048)
EXPERT_SIZES = ((16, 8, 2, 64, 64), (128, 16, 4, 256, 128), (256, 8, 2, 1024, 512))
SUM = Renormalize()
GROUPS = Groups(count=8, kept=4)
KINDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("softmax, renormalised", {"renormalize": SUM}),
    ("softmax", {}),
    ("sigmoid in groups, renormalised", {"score": "sigmoid", "renormalize": SUM, "groups": GROUPS}),
)


def router_case(sizes: tuple[int, ...], dtype: str, config: dict[str, Any]) -> GradientCase:
    """Return a plain call of a router: normal numbers."""
    tokens, experts, top_k, hidden = sizes
    rng, form = np.random.default_rng(0), INPUT_FORMATS[dtype]

    def drawn(*shape: int) -> Any:
        return form.round(rng.standard_normal(shape)).astype(np.float32)

    gate = form.round(drawn(experts, hidden) / hidden**0.5).astype(np.float32)
    inputs = RouterInputs(hidden=drawn(tokens, hidden), gate_weight=gate, dtype=dtype)
    made = RouterConfig(num_experts=experts, top_k=top_k, **config)
    return with_cotangent(Case(config=made, inputs=inputs))


def experts_case(sizes: tuple[int, ...], dtype: str) -> Any:
    """Return a call of gated experts with SiLU."""
    tokens, experts, top_k, hidden, width = sizes
    rng = np.random.default_rng(0)
    config = ExpertsConfig(num_experts=experts)
    draft = Draft(rng, config, INPUT_FORMATS[dtype], "normal", {"H": hidden, "F": width})
    ids = np.argsort(rng.random((tokens, experts)), axis=1)[:, :top_k]
    return with_expert_cotangent(draft.case(ids))


def least(calls: tuple[Callable[[], Any], ...], seconds: float) -> list[float]:
    """Return the least time of each call, in milliseconds; they take turns."""
    found: list[list[float]] = [[] for _ in calls]
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(found[0]) < 3:
        for call, times in zip(calls, found, strict=True):
            start = time.process_time()
            call()
            times.append(time.process_time() - start)
    return [min(times) * 1e3 for times in found]


def of_router(made: GradientCase) -> tuple[Callable[[], Any], ...]:
    """Return torch's call, and the judge's of its answer."""
    adapter = load_adapter("torch")
    answered = GradientTrial(adapter, made)
    assert answered.native is not None

    def judged() -> None:
        trial = GradientTrial(adapter, made)
        vars(trial)["_call"] = vars(answered)["_call"]
        for name in ("logits", "hidden", "gate_weight"):
            found = trial.verdict.of(name)
            assert found.decided
            assert not found.wrong.any()

    return lambda: adapter.gradients(made.config, made.inputs.router, made.inputs.cotangent), judged


def of_experts(made: Any) -> tuple[Callable[[], Any], ...]:
    """Return torch's call, and the judge's of its answer."""
    adapter = load_adapter("torch")
    answered = ExpertGradientTrial(adapter, made)
    assert answered.native is not None

    def judged() -> None:
        trial = ExpertGradientTrial(adapter, made)
        vars(trial)["_call"] = vars(answered)["_call"]
        assert not any(found.wrong.any() for found in trial.judged.values())

    return lambda: adapter.expert_gradients(*made.arguments(made.inputs)), judged


def seconds_of(text: str) -> float:
    """Read a number of seconds."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"Expected seconds above 0, such as 2, but got {text!r}")
    return seconds


def main(given: list[str]) -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("seconds", nargs="?", type=seconds_of, default=2.0, metavar="SECONDS")
    seconds = parser.parse_args(given).seconds
    keep_freed_memory()
    print("| call | dtype | kind | torch, ms | judge, ms | ratio |\n|---|---|---|--:|--:|--:|")

    def row(call: str, dtype: str, kind: str, calls: tuple[Callable[[], Any], ...]) -> None:
        torch, judge = least(calls, seconds)
        line = f"{torch:.2f} | {judge:.2f} | {judge / torch:.1f}"
        print(f"| {call} | {dtype} | {kind} | {line} |", flush=True)

    for sizes in (*SIZES, LARGE) if seconds >= 5.0 else SIZES:
        name = "T={} E={} K={} H={}".format(*sizes)
        for dtype in ("float32", "bfloat16"):
            for kind, config in KINDS:
                if sizes[1] >= 64 or "groups" not in config:
                    row(name, dtype, kind, of_router(router_case(sizes, dtype, config)))
    for sizes in EXPERT_SIZES:
        name = "T={} E={} K={} H={} F={}".format(*sizes)
        for dtype in ("float32", "bfloat16"):
            row(name, dtype, "gated experts, silu", of_experts(experts_case(sizes, dtype)))


if __name__ == "__main__":
    main(sys.argv[1:])
