"""Print the judge's cost next to torch's forward and backward pass, for every kind of router.

    OMP_NUM_THREADS=1 python benchmarks/gradient_table.py [ROW ...]

ROW is the start of a row's name; without one all rows are measured. A row is a router that presets
have, at two sizes and in two dtypes, or one stage that none of them has. A cell is the ratio of the
medians of five calls each, which take turns, in processor time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from gradient_cost import EXPERT_SIZES, experts_case, of_experts
from ratios import timed

from moe_routing.conformance.calls.gradients import GradientCase
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.generators.gradients import with_cotangent
from moe_routing.conformance.run.isolation.heap import keep_freed_memory
from moe_routing.conformance.trial.gradients import GradientTrial
from moe_routing.implementations import load_adapter
from moe_routing.reference import (
    PRESETS,
    Groups,
    Preset,
    Renormalize,
    RmsNorm,
    RouterConfig,
    RouterInputs,
)
from moe_routing.reference.formats import INPUT_FORMATS

SIZES = ((256, 64, 8, 512), (1024, 128, 8, 2048))
DTYPES = ("float32", "bfloat16")
ROUNDS = 5
SUM = Renormalize()
_ARRAYS = ("selection_bias", "gate_bias", "per_expert_scale")


@dataclass(frozen=True)
class Row:
    """A kind of router: its configuration but for sizes, the inputs that it has, and its name."""

    name: str
    config: dict[str, Any]
    arrays: frozenset[str] = field(default_factory=frozenset)
    answers_logits: bool = True


def _of_preset(preset: Preset) -> tuple[dict[str, Any], frozenset[str]]:
    config = {**vars(preset.config), "top_k": 1 if preset.config.top_k == 1 else 0}
    del config["num_experts"]
    return config, frozenset(name for name in _ARRAYS if getattr(preset, name))


def preset_rows() -> Iterator[Row]:
    """Yield each distinct router that presets have, scales aside, under the first one's name."""
    seen: dict[str, list[str]] = {}
    for name, preset in PRESETS.items():
        config, arrays = _of_preset(preset)
        scale = float(config["scale"] != 1.0)
        seen.setdefault(repr((config | {"scale": scale}, sorted(arrays))), []).append(name)
    for names in seen.values():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        config, arrays = _of_preset(PRESETS[names[0]])
        yield Row(names[0] + more, config, arrays)


def _softmax(name: str, *arrays: str, **config: Any) -> Row:
    return Row(name, {"renormalize": SUM, "top_k": 0, **config}, frozenset(arrays))


_HALVES = {"groups": Groups(count=8, kept=4, fill=0.0), "weights_from": "masked_scores"}
STAGES = (
    _softmax("softcap", logit_softcap=30.0),
    _softmax("multiplier", logit_multiplier=0.5),
    _softmax("input norm", input_norm=RmsNorm()),
    _softmax("input norm with a scale", "hidden_scale", input_norm=RmsNorm()),
    _softmax("masked scores", renormalize=None, **_HALVES),
    _softmax("masked scores, renormalised", **_HALVES),
    _softmax("scores in the input's dtype", scores_dtype="input"),
    _softmax("softmax in the input's dtype", renormalize=None, scores_dtype="input"),
    _softmax("sigmoid in the input's dtype", score="sigmoid", scores_dtype="input"),
    _softmax("gate bias", "gate_bias"),
    _softmax("gate delta", "gate_delta"),
    _softmax("expert scale", "per_expert_scale"),
    _softmax("eps", renormalize=Renormalize(eps=1e-6)),
    _softmax("floor", renormalize=Renormalize(floor=1e-6)),
    _softmax("order 2", renormalize=Renormalize(order=2.0)),
    _softmax("sigmoid, order 2", score="sigmoid", renormalize=Renormalize(order=2.0)),
    _softmax("sqrtsoftplus", score="sqrtsoftplus"),
    _softmax("sqrtsoftplus without a norm", score="sqrtsoftplus", renormalize=None),
    _softmax("sigmoid without a norm", score="sigmoid", renormalize=None),
    replace(_softmax("logits not answered"), answers_logits=False),
    replace(_softmax("sigmoid, logits not answered", score="sigmoid"), answers_logits=False),
    replace(_softmax("softmax, logits not answered", renormalize=None), answers_logits=False),
    replace(_softmax("16-bit logits not answered", logits_dtype="input"), answers_logits=False),
    replace(
        _softmax("16-bit softmax, logits not answered", scores_dtype="input"), answers_logits=False
    ),
    _softmax("logits past 64", logit_multiplier=40.0),
)


def case(row: Row, sizes: tuple[int, ...], dtype: str) -> GradientCase:
    """Return a plain call of a router: normal numbers."""
    tokens, experts, top_k, hidden = sizes
    rng, form = np.random.default_rng(0), INPUT_FORMATS[dtype]

    def drawn(*shape: int) -> Any:
        return form.round(rng.standard_normal(shape)).astype(np.float32)

    arrays = {
        "selection_bias": lambda: drawn(experts) / np.float32(64.0),
        "gate_bias": lambda: drawn(experts),
        "per_expert_scale": lambda: np.abs(drawn(experts)),
        "gate_delta": lambda: form.round(drawn(experts, hidden) / 256.0).astype(np.float32),
        "hidden_scale": lambda: drawn(hidden),
    }
    given = {name: arrays[name]() for name in sorted(row.arrays)}
    # before an input norm, whose factor of H**-0.5 makes up for it, a gate as checkpoints have
    size = 1.0 if row.config.get("input_norm") else hidden**0.5
    gate = form.round(drawn(experts, hidden) / size).astype(np.float32)
    inputs = RouterInputs(hidden=drawn(tokens, hidden), gate_weight=gate, dtype=dtype, **given)
    config = {**row.config, "top_k": row.config["top_k"] or top_k}
    return with_cotangent(Case(config=RouterConfig(num_experts=experts, **config), inputs=inputs))


def calls(made: GradientCase, answers_logits: bool) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return torch's call, and the judge's of its answer, which it judges from nothing."""
    adapter: Any = load_adapter("torch")
    answered = GradientTrial(adapter, made)
    native: Any = answered.native
    assert native is not None
    if not answers_logits:
        routing = replace(native.routing, logits=None)
        object.__setattr__(native, "routing", routing)
        object.__setattr__(native, "logits", None)

    def judged() -> None:
        trial = GradientTrial(adapter, made)
        vars(trial)["_call"] = vars(answered)["_call"]
        for name in trial.received.gradients:
            found = trial.verdict.of(name)
            assert found.decided, name
            assert not found.wrong.any(), name

    return lambda: adapter.gradients(made.config, made.inputs.router, made.inputs.cotangent), judged


def printed(name: str, found: list[float]) -> None:
    """Print a row."""
    print(f"| {name} | " + " | ".join(f"{each:.1f}" for each in found) + " |", flush=True)


def ratio(pair: tuple[Callable[[], Any], Callable[[], Any]]) -> float:
    """Return the median time of a verdict over that of torch's call; they take turns."""
    times = [[timed(call) for call in pair] for _ in range(ROUNDS + 1)][1:]
    torch, judge = (statistics.median(each) for each in zip(*times, strict=True))
    return judge / torch


def starts(given: list[str], rows: list[str]) -> tuple[str, ...]:
    """Return the starts of the rows that are wanted. Errors: ``SystemExit``, in one line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="the start of a row's name")
    wanted = parser.parse_args(given).rows
    for each in wanted:
        if not any(row.startswith(each) for row in rows):
            parser.error(f"No row begins with {each!r}; rows are {', '.join(rows)}")
    return tuple(wanted) or ("",)


def main(given: list[str]) -> None:
    """Print a table in Markdown."""
    routers = (*preset_rows(), *STAGES)
    experts = {"experts T={} E={} K={} H={} F={}".format(*size): size for size in EXPERT_SIZES}
    wanted = starts(given, [*(row.name for row in routers), *experts])
    keep_freed_memory()
    ratio(calls(case(STAGES[0], SIZES[-1], DTYPES[0]), True))  # the first calls are slower
    cells = [(dtype, sizes) for dtype in DTYPES for sizes in SIZES]
    print("| router | " + " | ".join(f"{dtype}, T={sizes[0]}" for dtype, sizes in cells) + " |")
    print("|---|" + "--:|" * len(cells))
    for row in routers:
        if row.name.startswith(wanted):
            found = [ratio(calls(case(row, s, dtype), row.answers_logits)) for dtype, s in cells]
            printed(row.name, found)
    for name, size in experts.items():
        if name.startswith(wanted):
            found = [ratio(of_experts(experts_case(size, dtype))) for dtype in DTYPES]
            printed(name, found)


if __name__ == "__main__":
    main(sys.argv[1:])
