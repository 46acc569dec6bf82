"""Clauses of the chapter on gradients about several calls, or about none of a call's numbers."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from moe_routing.conformance.calls.gradients import GradientCase
from moe_routing.conformance.clauses.gradients import ROWS, gives, gradient_clause, wrong
from moe_routing.conformance.explain import story
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.explain.numbers import show
from moe_routing.conformance.generators.choices import Focus
from moe_routing.conformance.generators.construct import with_inputs
from moe_routing.conformance.trial.gradients import GradientTrial
from moe_routing.reference.formats import FLOAT32


@gradient_clause(
    "rows-apart",
    "One bad token of a batch must not stop the others from learning, nor change what they learn.",
    rules=("GRAD-17",),
    bugs=("M64",),
    events=("gradient-nan-row",),
    needs=gives(*ROWS),
)
def rows_apart(trial: GradientTrial) -> Failure | None:
    """A token of NaN leaves the gradients of every other token right."""
    inputs = trial.case.inputs
    if trial.case.num_tokens < 2 or inputs.logits is not None:
        return wrong(trial, *ROWS)
    broken = trial.once(_with_nan)
    return wrong(cast(GradientTrial, trial.of(broken)), *ROWS)


def _with_nan(case: GradientCase) -> GradientCase:
    """Return the case with its first token of NaN."""
    hidden = np.array(case.inputs.hidden)
    hidden[0] = np.nan
    return with_inputs(case, hidden=hidden)


@gradient_clause(
    "linear",
    "A gradient that is clipped, or scaled by its own size, hides what the loss scaler measures.",
    rules=("GRAD-18",),
    bugs=("M64",),
    events=("gradient-any", "gradient-normed"),
    needs=gives(*ROWS),
)
def linear(trial: GradientTrial) -> Failure | None:
    """Twice the cotangent gives each token twice the gradient, bit for bit."""
    once, twice = trial, cast(GradientTrial, trial.of(trial.once(_doubled)))
    for name in ROWS:
        if not trial.judges(name):
            continue
        first, second = once.received.gradients.get(name), twice.received.gradients.get(name)
        if first is None or second is None:
            continue
        if (place := _not_twice(first, second, trial.case.dtype)) is not None:
            return _bent(trial, name, place, float(first[place]), float(second[place]))
    return wrong(twice, *ROWS, *OF_THE_GATE)


OF_THE_GATE = ("gate_weight", "gate_bias", "gate_delta", "per_expert_scale", "hidden_scale")
"""The sums over tokens, which a second call must not find in the buffers of the first."""


def _doubled(case: GradientCase) -> GradientCase:
    return with_inputs(case, cotangent=case.inputs.cotangent * np.float32(2.0))


def _not_twice(first: Any, second: Any, dtype: str) -> tuple[int, ...] | None:
    """Return where the second is not twice the first; numbers that may underflow do not count."""
    if dtype == "float16":
        return None  # of whose range a cotangent leaves little
    safe = FLOAT32.tiny / FLOAT32.unit_roundoff**2
    differ = np.isfinite(first) & (np.abs(first) > safe) & (second != 2.0 * first)
    return tuple(int(i) for i in np.argwhere(differ)[0]) if differ.any() else None


def _bent(
    trial: GradientTrial, name: str, place: tuple[int, ...], first: float, second: float
) -> Failure:
    where = f"{name}[{', '.join(map(str, place))}]"
    summary = (
        f"the gradient of {where} is {show(first)}, and {show(second)} for twice the cotangent: "
        "not twice as much"
    )
    line = f"call    {story.call(trial.case.config, trial.case.inputs.router)}"
    return Failure(stage="linear", token=place[0], summary=summary, details=(line,))


@gradient_clause(
    "no-tokens",
    "A rank without tokens still takes part in the backward pass, with zeros.",
    rules=("GRAD-19",),
    bugs=("M64",),
    events=("gradient-no-tokens",),
    without_tokens=True,
    focus=Focus(offers={"num_tokens": lambda offered: [n for n in offered if n == 0]}),
)
def no_tokens(trial: GradientTrial) -> Failure | None:
    """Without tokens the gradients of the parameters are 0."""
    if trial.case.num_tokens:
        return None
    return wrong(trial, "logits", "hidden", "gate_weight", "gate_bias", "gate_delta")


@gradient_clause(
    "inputs-untouched",
    "A router that saves memory by writing over its inputs changes what the rest of the backward "
    "pass reads.",
    rules=("GRAD-20",),
    bugs=("M64", "M61"),
    events=("gradient-any",),
)
def inputs_untouched(trial: GradientTrial) -> Failure | None:
    """The call leaves the inputs and the cotangent as they were."""
    if not trial.changed:
        return None
    summary = f"wrote to its inputs: {', '.join(trial.changed)}"
    line = f"call    {story.call(trial.case.config, trial.case.inputs.router)}"
    return Failure(stage="inputs-untouched", summary=summary, details=(line,))
