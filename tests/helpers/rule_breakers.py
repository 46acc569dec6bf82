"""Routers that each break one rule of docs/spec, where the zoo has no mutant that does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from moe_routing.conformance.zoo import MUTANTS
from moe_routing.conformance.zoo.residents import ROUTED, WHOLE, Staged
from moe_routing.conformance.zoo.router import stages
from moe_routing.conformance.zoo.router.differentiator import StagedDifferentiator
from moe_routing.conformance.zoo.router.functions import SCORE_FUNCTIONS, softmax
from moe_routing.conformance.zoo.router.layouts import flat
from moe_routing.conformance.zoo.router.memory import overwrite
from moe_routing.conformance.zoo.router.router import StagedRouter
from moe_routing.conformance.zoo.router.shared_stages import contribution
from moe_routing.conformance.zoo.router.work import Stage, Work
from moe_routing.implementations import Capabilities, Claim, DenseRouting, Limits, Unsupported
from moe_routing.reference import dispatched_config
from moe_routing.reference.selection import top_k

Array = np.ndarray
IDENTITY = Capabilities(claims=(Claim(score=("identity",), expert_table=(False,)),))
LIMITED = Capabilities(claims=(Claim(score=("softmax",)),), limits=Limits(max_experts=16))

BREAKERS: dict[str, list[Callable[[], Staged]]] = {}
"""What makes routers that break a rule, by the rule."""


def broken(rule: str, claims: Capabilities = WHOLE, **parts: Stage) -> None:
    """Register a router that has these stages in place of the right ones."""
    BREAKERS.setdefault(rule, []).append(lambda: StagedRouter("breaker", parts, claims))


def breaks(*rules: str, stage: str, claims: Capabilities = WHOLE) -> Callable[[Stage], Stage]:
    """Register the decorated stage as what breaks ``rules``."""

    def register(wrong: Stage) -> Stage:
        for rule in rules:
            broken(rule, claims, **{stage: wrong})
        return wrong

    return register


# Logits and scores.


@breaks("LOG-2", stage="logits")
def delta_of_the_raw_input(w: Work) -> Array:
    z = stages.logits(w)
    missed = w.hidden - w.gate_input
    return z if w.gate_delta is None else z + missed @ w.gate_delta.T


broken(
    "LOG-3",
    gate_bias=lambda w: None,
    operated=lambda w: (
        stages.operated(w) + (0 if w.inputs.gate_bias is None else w.inputs.gate_bias)
    ),
)
broken("LOG-4", operated=lambda w: w.logits * np.float32(w.config.logit_multiplier))
broken("LOG-5", ROUTED, reported_logits=lambda w: w.operated)


@breaks("PIPE-4", "LOG-5", "LAY-6", stage="reported_logits", claims=ROUTED)
def logits_in_float16(w: Work) -> Array:
    return w.logits.astype(np.float16)


def epsilon_outside_the_root(w: Work) -> Array:
    right, norm = stages.gate_input(w), w.config.input_norm
    if norm is None:
        return right
    square = np.mean(w.hidden * w.hidden, axis=1, keepdims=True)
    wrong = np.sqrt(square + np.float32(norm.eps)) / (np.sqrt(square) + np.float32(norm.eps))
    return right * wrong


broken("LOG-7", gate_input=epsilon_outside_the_root)
broken(
    "LOG-7",
    ROUTED,
    gate_input=epsilon_outside_the_root,
    reported_logits=lambda w: w.logits,
)


@breaks("SCO-2", stage="scores")
def softplus_that_overflows(w: Work) -> Array:
    right = SCORE_FUNCTIONS[w.config.score](w.operated)
    return np.sqrt(np.log1p(np.exp(w.operated))) if w.config.score == "sqrtsoftplus" else right


@breaks("SCO-5", stage="competing", claims=IDENTITY)
def selects_by_a_softmax(w: Work) -> Array:
    return softmax(w.operated) + (0 if w.selection_bias is None else w.selection_bias)


# Groups and selection.


broken("GRP-3", kept_groups=lambda w: top_k(w.group_scores, max(1, w.config.groups.kept - 1)))
broken("GRP-7", kept=lambda w: stages.kept(w) & ~_last_group(w))


def _last_group(w: Work) -> Array:
    groups, last = w.config.groups, np.zeros(w.config.num_experts, dtype=bool)
    if groups is not None and groups.kept == groups.count > 1:
        last[-w.experts_per_group :] = True
    return last


@breaks("GRP-6", stage="gathered")
def excluded_experts_weigh_nothing(w: Work) -> Array:
    right = stages.gathered(w)
    return right if w.config.groups is None else right * stages.at_ids(w, w.kept)


@breaks("GRP-9", stage="group_scores")
def small_groups_score_nothing(w: Work) -> Array:
    return stages.group_scores(w) * np.float32(w.config.groups.top <= w.experts_per_group)


@breaks("SEL-4", "DIS-3", stage="selection_bias")
def bias_on_statics_ignored(w: Work) -> Array | None:
    return None if w.inputs.selection_bias_on == "statics" else w.inputs.selection_bias


@breaks("SEL-6", stage="selection_bias")
def zeros_read_as_something(w: Work) -> Array | None:
    bias = w.inputs.selection_bias
    return bias if bias is None or bias.any() else np.arange(len(bias), dtype=np.float32)


@breaks("SEL-12", "SEL-13", stage="expert_ids")
def table_without_repetition(w: Work) -> Array:
    ids, table = stages.expert_ids(w), w.inputs.expert_table
    return ids if table is None else (ids[:, :1] + np.arange(w.config.top_k)) % w.config.num_experts


broken("LAY-7", expert_ids=lambda w: stages.expert_ids(w) + w.config.num_experts)
broken("SHA-8", expert_ids=lambda w: np.maximum(stages.expert_ids(w), w.config.num_experts))


@breaks("ROB-5", stage="expert_ids")
def repeats_expert_zero_where_scores_underflow(w: Work) -> Array:
    ids = stages.expert_ids(w)
    free = w.selection_bias is None and w.inputs.expert_table is None
    return np.where(free & (np.take_along_axis(w.scores, ids, axis=1) == 0), 0, ids)


@breaks("INV-4", stage="biased")
def expert_zero_is_favoured(w: Work) -> Array:
    return stages.biased(w) + np.float32(0.25) * (np.arange(w.config.num_experts) == 0)


# Weights, layouts, sizes.


@breaks("WGT-2", stage="weights")
def nan_for_the_second_token(w: Work) -> Array:
    second = np.arange(w.num_tokens)[:, None] == 1
    return np.where(second, np.float32(np.nan), stages.weights(w))


@breaks("WGT-3", stage="gathered")
def masked_scores_that_are_not(w: Work) -> Array:
    masked = w.config.weights_from == "masked_scores"
    return stages.at_ids(w, w.scores) if masked else stages.gathered(w)


@breaks("WGT-4", stage="gathered")
def softmax_of_all(w: Work) -> Array:
    selected = w.config.weights_from == "softmax_of_selected"
    return stages.at_ids(w, softmax(w.operated)) if selected else stages.gathered(w)


@breaks("WGT-8", stage="renormalized")
def experts_own_scales_are_divided_away(w: Work) -> Array:
    scales = w.per_expert_scale
    if scales is None or w.config.renormalize is None:
        return stages.renormalized(w)
    own = np.take(scales, w.expert_ids, mode="clip")
    return w.gathered / (w.gathered * own).sum(axis=1, keepdims=True)


@breaks("SEL-13", stage="gathered")
def a_repeated_expert_shares_its_weight(w: Work) -> Array:
    times = (w.expert_ids[:, :, None] == w.expert_ids[:, None, :]).sum(axis=2)
    return (stages.gathered(w) / times).astype(np.float32)


@breaks("SEL-14", stage="weights")
def a_table_makes_all_weights_equal(w: Work) -> Array:
    right = stages.weights(w)
    return right if w.inputs.expert_table is None else np.full_like(right, 1 / w.config.top_k)


broken("LAY-4", answer=lambda w: replace(flat(w), num_tokens=w.num_tokens + 1))


@breaks("ROB-3", stage="logits")
def no_kernel_for_odd_sizes(w: Work) -> Array:
    if w.config.num_experts % 2:
        raise RuntimeError("no kernel of this size")
    return stages.logits(w)


@breaks("ROB-3", stage="config", claims=LIMITED)
def a_limit_that_is_not_kept(w: Work) -> Any:
    if w.requested.score != "softmax":
        raise Unsupported("another score")
    return stages.checked(w)


# Dispatch and shared experts.


@breaks("DIS-5", stage="dispatched")
def a_linear_bias_counts(w: Work) -> Any:
    biased = w.inputs.selection_bias is not None or w.inputs.gate_bias is not None
    return replace(w.requested, score="sigmoid" if biased else "softmax")


@breaks("DIS-6", stage="dispatched")
def the_scale_is_lost(w: Work) -> Any:
    right = dispatched_config(w.requested, w.inputs)
    return right if w.inputs.selection_bias is None else replace(right, scale=1.0)


def multiplied(w: Work, factor: float) -> Array | None:
    right = contribution(w)
    return None if right is None else right * np.float32(factor)


broken("SHA-1", contribution=lambda w: None if w.requested.gated else contribution(w))
broken("SHA-3", contribution=lambda w: multiplied(w, 1.0 if w.requested.gated else 0.5))
broken("SHA-4", contribution=lambda w: multiplied(w, 2.5))
broken("SHA-7", contribution=lambda w: np.zeros((1, *w.inputs.hidden.shape), np.float32))


@breaks("SHA-5", stage="contribution")
def writes_over_its_input(w: Work) -> Array | None:
    right = contribution(w)
    overwrite(w.inputs.hidden, w.inputs.hidden + np.float32(1))
    return right


# Layout: dense weights without a map.


def dense(w: Work, cleared: float = 0.0) -> DenseRouting:
    """Answer densely, without weights that are not above ``cleared``."""
    table = np.zeros((w.num_tokens, w.config.num_experts), np.float32)
    np.put_along_axis(table, w.expert_ids, w.weights, axis=1)
    return DenseRouting(weights=np.where(np.abs(table) > cleared, table, 0), logits=None)


MAPLESS = Capabilities(claims=(Claim(expert_table=(False,), per_expert_scale=(False,)),))
broken("LAY-11", MAPLESS, answer=lambda w: dense(w, 1e-3))
broken("LAY-11", MAPLESS, answer=lambda w: DenseRouting(weights=w.scores.astype(np.float32)))


# Gradients: of a backend that keeps that of its logits to itself, so that others show it.


def silent(rule: str, name: str) -> None:
    """Register a mutant without the gradient of its logits."""
    kept = {**MUTANTS[name].stages, "of_logits": lambda w: None}
    BREAKERS.setdefault(rule, []).append(lambda: StagedDifferentiator(name, kept, WHOLE))


silent("GRAD-1", "signs-swapped")
silent("GRAD-2", "mean-term-dropped")
silent("GRAD-3", "norm-detached")
silent("GRAD-4", "scale-missing-in-backward")
silent("GRAD-5", "softcap-passes")
