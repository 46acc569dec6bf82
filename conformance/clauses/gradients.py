"""Clauses of the chapter on gradients (docs/spec/gradients.md)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from moe_routing.conformance.calls.gradients import GradientCase
from moe_routing.conformance.clauses.logits import no_wide_gate
from moe_routing.conformance.clauses.registry import Check, clause
from moe_routing.conformance.events import members
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.explain.gradients import gradient_failure
from moe_routing.conformance.generators.choices import Focus
from moe_routing.conformance.generators.gradients import choose_gradient_case
from moe_routing.conformance.generators.seeds import Seeded
from moe_routing.conformance.trial.base import Unchecked
from moe_routing.conformance.trial.gradients import GradientTrial
from moe_routing.implementations import Capabilities

FEW = 25
"""The cases that are drawn for a clause about one part: others draw the whole pipeline."""

ROWS = ("logits", "hidden")
"""The gradients of each token's own."""

SCORES = members("gradient-score")
COTANGENTS = (
    *("gradient-fine-cotangent", "gradient-strided-cotangent"),
    *("gradient-cotangent-of-all-sizes", "gradient-zero-cotangent"),
)
SIZES = ("gradient-tokens-above-1024", "gradient-experts-above-512")
PARTS = (
    *("gradient-normed", "gradient-not-normed", "gradient-norm-of-order", "gradient-norm-with-eps"),
    *("gradient-floored", "gradient-scaled", "gradient-capped", "gradient-multiplied"),
)


def gradient_clause(
    name: str, why: str, *, focus: Focus | None = None, **parts: Any
) -> Callable[[Check], Check]:
    """Register a clause about calls of ``gradients``, drawn under ``focus``."""

    def strategy(capabilities: Capabilities) -> Seeded[GradientCase]:
        focused = focus or Focus()
        return Seeded(partial(choose_gradient_case, capabilities=capabilities, focus=focused))

    register: Callable[[Check], Check] = clause(
        f"gradients.{name}",
        "MUST",
        why=why,
        method="gradients",
        strategy=strategy,
        **{"most": FEW, **parts},
    )
    return register


def gives(*names: str) -> Callable[[Capabilities], str | None]:
    """Return why capabilities claim none of these gradients, or None if they claim one."""

    def needs(capabilities: Capabilities) -> str | None:
        of, lacking = capabilities.differentiated, " or ".join(names)
        return None if {*names} & {*of} else f"gradients.of={of} has no {lacking}"

    return needs


_OF_GATE = gives("gate_weight", "gate_bias", "gate_delta", "logits")


def wrong(trial: GradientTrial, *names: str) -> Failure | None:
    """Return the failure of the first of these gradients that is wrong.

    Errors: ``Unchecked`` where none of them is there, or nothing of them is decided.
    """
    judged = [trial.verdict.of(name) for name in names if trial.judges(name)]
    for each in judged:
        if each.wrong.any():
            return gradient_failure(trial.verdict, each)
    if trial.case.num_tokens and not any(each.decided for each in judged):
        raise Unchecked(f"rounding decides nothing about the gradient of {' or '.join(names)}")
    return None


@gradient_clause(
    "logits",
    "Every parameter below the router is trained through this one: a wrong factor here is a wrong "
    "learning rate, a dropped term pushes experts the wrong way.",
    rules=("GRAD-1", "GRAD-2", "GRAD-3", "GRAD-4", "GRAD-5"),
    bugs=("M64",),
    events=(
        *("gradient-any", *SCORES, *PARTS, "gradient-expert-scale", "gradient-expert-scale-alone"),
        *(*COTANGENTS, *SIZES, "gradient-whole-blocks-of-1024"),
    ),
    part="logits",
    most=None,
)
def logits(trial: GradientTrial) -> Failure | None:
    """The gradient of the logits is that of the weights at the answered experts, up to rounding."""
    return wrong(trial, "logits")


@gradient_clause(
    "hidden",
    "The layers below learn from the router through the hidden states alone.",
    rules=("GRAD-1", "GRAD-2", "GRAD-3", "GRAD-4", "GRAD-5", "GRAD-6"),
    bugs=("M64",),
    events=(
        *("gradient-any", *SCORES, *PARTS, "gradient-gate", "gradient-expert-scale"),
        *("gradient-columns-above-128", "gradient-columns-above-4096", *COTANGENTS, *SIZES),
    ),
    needs=gives("hidden"),
    most=None,
)
def hidden(trial: GradientTrial) -> Failure | None:
    """The gradient of the hidden states goes through the gate, the delta and the input norm."""
    return wrong(trial, "hidden")


@gradient_clause(
    "gate-weight",
    "A gate that learns from some of the tokens, or in too few bits, still learns something: "
    "nobody looks.",
    rules=("GRAD-7",),
    bugs=("M64",),
    events=(
        *("gradient-gate", "gradient-columns-above-128", "gradient-columns-above-4096"),
        *("gradient-tokens-above-256", "gradient-exact-sum", *COTANGENTS, *SIZES),
        "gradient-whole-blocks-of-1024",
    ),
    needs=gives("gate_weight"),
)
def gate_weight(trial: GradientTrial) -> Failure | None:
    """The gradient of the gate is a sum over every token, accumulated in float32."""
    return wrong(trial, "gate_weight")


@gradient_clause(
    "float32-gate",
    "A gate is in float32 since its updates are small: gradients of 16 bits throw away what the "
    "parameter could have held.",
    rules=("GRAD-22",),
    bugs=("M64",),
    events=("gradient-wide-gate",),
    narrow={"gate_dtype": ("float32",)},
    focus=Focus(offers={"dtype": lambda offered: [each for each in offered if each != "float32"]}),
    needs=lambda capabilities: no_wide_gate(capabilities) or _OF_GATE(capabilities),
    promise="gate_dtype",
)
def float32_gate(trial: GradientTrial) -> Failure | None:
    """The gradients of a float32 gate, its bias and its delta are not rounded to 16 bits."""
    return wrong(trial, "gate_weight", "gate_bias", "gate_delta", "logits")


@gradient_clause(
    "gate-bias",
    "A linear bias without its gradient never moves.",
    rules=("GRAD-8",),
    bugs=("M64",),
    events=("gradient-gate-bias", "gradient-tokens-above-256", *SIZES),
    narrow={"gate_bias": (True,)},
    needs=gives("gate_bias"),
)
def gate_bias(trial: GradientTrial) -> Failure | None:
    """The gradient of the linear bias is the sum of that of the logits over all tokens."""
    return wrong(trial, "gate_bias")


@gradient_clause(
    "delta",
    "In fine-tuning with LoRA the delta is all that learns.",
    rules=("GRAD-9", "GRAD-6"),
    bugs=("M64",),
    events=("gradient-delta", "gradient-tokens-above-256", *SIZES),
    narrow={"gate_delta": (True,)},
    needs=gives("gate_delta", "hidden"),
)
def delta(trial: GradientTrial) -> Failure | None:
    """The gradient of a delta is that of the gate, and the hidden states get a part through it."""
    return wrong(trial, "gate_delta", "hidden")


@gradient_clause(
    "expert-scale",
    "A scale of an expert that gets another expert's gradient drives the two apart.",
    rules=("GRAD-10",),
    bugs=("M64",),
    events=(
        *("gradient-expert-scale", "gradient-expert-scale-by-zero", "gradient-expert-scale-alone"),
        *("gradient-tokens-above-256", *SIZES),
    ),
    narrow={"per_expert_scale": (True,)},
    needs=gives("per_expert_scale"),
)
def expert_scale(trial: GradientTrial) -> Failure | None:
    """The gradient of an expert's scale is the sum of cotangents times weights before it."""
    return wrong(trial, "per_expert_scale")


@gradient_clause(
    "hidden-scale",
    "The scale after the input norm is trained with the router, and by nothing else.",
    rules=("GRAD-11", "GRAD-6"),
    bugs=("M64",),
    events=("gradient-hidden-scale", "gradient-tokens-above-256", "gradient-tokens-above-1024"),
    narrow={"input_norm": (True,)},
    needs=gives("hidden_scale"),
)
def hidden_scale(trial: GradientTrial) -> Failure | None:
    """The gradient of the scale after the input norm is a sum over every token."""
    return wrong(trial, "hidden_scale", "hidden")


@gradient_clause(
    "norm-is-differentiated",
    "One renormalised expert weighs 1 whatever its logit is: a gradient that passes pushes it on "
    "noise, without end.",
    rules=("GRAD-3",),
    bugs=("M64",),
    events=("gradient-normed-alone",),
    focus=Focus(offers={"top_k": lambda offered: [k for k in offered if k == 1]}),
    needs=lambda capabilities: _never_alone(capabilities) or gives(*ROWS)(capabilities),
)
def norm_is_differentiated(trial: GradientTrial) -> Failure | None:
    """With one expert a token and a norm, no gradient is left but rounding."""
    config = trial.case.config
    if config.renormalize is None or config.top_k > 1:
        raise Unchecked("no token's one expert is renormalised")
    return wrong(trial, *ROWS)


def _never_alone(capabilities: Capabilities) -> str | None:
    for claim in capabilities.claims:
        if 1 in claim.top_k and any(rule is not None for rule in _rules(claim)):
            return None
    return "nothing claimed has top_k=1 with renormalize other than None"


def _rules(claim: Any) -> tuple[Any, ...]:
    return claim.renormalize if isinstance(claim.renormalize, tuple) else (True,)


@gradient_clause(
    "bias-has-none",
    "The selection bias balances load by a rule of its own; an optimizer that gets a gradient for "
    "it fights that rule.",
    rules=("GRAD-12",),
    bugs=("M64",),
    events=("gradient-selection-bias", "gradient-tokens-above-1024"),
    narrow={"selection_bias": ("gate", "block", "statics")},
    focus=Focus(biases=("steering", "normal", "zero")),
)
def bias_has_none(trial: GradientTrial) -> Failure | None:
    """The selection bias has no gradient: None, or zeros."""
    if trial.case.inputs.selection_bias is None:
        raise Unchecked("there is no selection bias")
    judged = trial.verdict.of("selection_bias")
    return gradient_failure(trial.verdict, judged) if judged.wrong.any() else None
