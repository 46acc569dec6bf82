"""The right stages: what each one must do, in float32, a line or two each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from moe_routing.conformance.zoo.router.functions import SCORE_FUNCTIONS, Array, sigmoid, softmax
from moe_routing.conformance.zoo.router.shared_stages import SHARED
from moe_routing.conformance.zoo.router.work import Stage, Work
from moe_routing.reference import RouterConfig, Routing, check_inputs, dispatched_config
from moe_routing.reference.selection import top_k


def config(w: Work) -> RouterConfig:
    """Refuse what is not claimed, then what is not valid."""
    w.require_claimed()
    return w.valid


def checked(w: Work) -> RouterConfig:
    """Check the configuration and the inputs. Errors: ``ValueError``."""
    valid = RouterConfig(**vars(w.requested))
    check_inputs(valid, w.inputs)
    return valid


def gate_input(w: Work) -> Array:
    """Normalise the hidden states if the configuration has an input norm."""
    return gate_input_of(w, w.hidden)


def gate_input_of(w: Work, hidden: Array) -> Array:
    """Normalise these hidden states if the configuration has an input norm."""
    if w.config.input_norm is None:
        return hidden
    mean_square = np.mean(hidden * hidden, axis=1, keepdims=True)
    unit = hidden / np.sqrt(mean_square + np.float32(w.config.input_norm.eps))
    scale = 1 if w.inputs.hidden_scale is None else w.inputs.hidden_scale
    normed: Array = unit * scale * np.float32(w.inputs.hidden_size**-0.5)
    return normed


def product(x: Array, matrix: Array) -> Array:
    """Return ``x matrix^T`` in float32."""
    return x @ matrix.T


def logits(w: Work) -> Array:
    """Multiply by the gate, add the delta's product and the linear bias."""
    return gate_logits(w, product)


def gate_logits(w: Work, multiply: Callable[[Array, Array], Array]) -> Array:
    """Compute the logits with another product of matrices."""
    z = multiply(w.gate_input, w.gate_weight)
    if w.gate_delta is not None:
        z = z + multiply(w.gate_input, w.gate_delta)
    return z if w.gate_bias is None else z + w.gate_bias


def operated(w: Work) -> Array:
    """Multiply, then cap."""
    z, cap = w.logits, w.config.logit_softcap
    if w.config.logit_multiplier != 1.0:
        z = z * np.float32(w.config.logit_multiplier)
    return z if cap is None else np.tanh(z / np.float32(cap)) * np.float32(cap)


def biased(w: Work) -> Array:
    """Add the selection bias."""
    return w.scores if w.selection_bias is None else w.scores + w.selection_bias


def grouped(w: Work, values: Array) -> Array:
    """Return ``values [T, E]`` as ``[T, count, E / count]``."""
    return values.reshape(len(values), w.groups.count, -1)


def group_scores(w: Work) -> Array:
    """Sum the best of each group."""
    return sum_of_best(w, w.groups.top)


def sum_of_best(w: Work, top: int) -> Array:
    """Sum the ``top`` best biased scores of each group, or what it has."""
    numbers = np.where(np.isnan(w.biased), -np.inf, w.biased)
    best = np.sort(numbers.reshape(-1, w.groups.count, w.experts_per_group), axis=2)
    total: Array = best[:, :, -min(top, w.experts_per_group) :].sum(axis=2)
    return total


def kept(w: Work) -> Array:
    """Mark the experts of the kept groups."""
    if w.config.groups is None or w.config.groups.from_each:
        return np.ones(w.biased.shape, dtype=bool)
    return marked(w, w.kept_groups)


def marked(w: Work, groups: Array) -> Array:
    """Mark the experts of ``groups [T, kept]``."""
    mask = np.zeros((len(groups), w.groups.count), dtype=bool)
    np.put_along_axis(mask, groups, True, axis=1)
    return np.repeat(mask, w.experts_per_group, axis=1)


def competing(w: Work) -> Array:
    """Fill the excluded experts."""
    return filled(w, w.config.groups.fill if w.config.groups else 0.0)


def filled(w: Work, fill: float) -> Array:
    """Return the biased scores with ``fill`` for the excluded experts."""
    return np.where(w.kept, w.biased, np.float32(fill))


def expert_ids(w: Work) -> Array:
    """Select the K best; a hash router looks them up."""
    return table_or(w, lambda: best_of(w, top_k))


def best_of(w: Work, select: Callable[[Array, int], Array]) -> Array:
    """Return the K best by ``select``, or the best of each group where every group gives some."""
    groups = w.config.groups
    if groups is None or not groups.from_each:
        return select(w.competing, w.config.top_k)
    share, size = w.config.top_k // groups.count, w.experts_per_group
    ids = select(w.competing.reshape(-1, size), share).reshape(
        len(w.competing), groups.count, share
    )
    found: Array = (ids + np.arange(groups.count)[:, None] * size).reshape(
        len(ids), groups.count * share
    )
    return found


def table_or(w: Work, select: Callable[[], Array]) -> Array:
    """Return the rows of the expert table where there is one, else the ids of ``select``."""
    if w.inputs.expert_table is None:
        return select()
    looked_up: Array = w.inputs.expert_table[w.inputs.token_ids]
    return looked_up


def at_ids(w: Work, values: Array) -> Array:
    """Gather ``values [T, E]`` at the selected experts, unchecked, as kernels do."""
    ids = np.minimum(np.maximum(w.expert_ids, 0), values.shape[1] - 1)
    found: Array = values[np.arange(len(ids))[:, None], ids]
    return found


def gathered(w: Work) -> Array:
    """Gather the weights from the values that the configuration names."""
    match w.config.weights_from:
        case "scores":
            return at_ids(w, w.scores)
        case "masked_scores":
            return at_ids(w, np.where(w.kept, w.scores, np.float32(0)))
        case "softmax_of_selected":
            return softmax(at_ids(w, w.operated))
        case _:
            return sigmoid(at_ids(w, w.operated))


def norm(w: Work) -> Array:
    """Return the divisor of renormalisation."""
    return np.maximum(norm_of(w) + np.float32(w.rule.eps), np.float32(w.rule.floor))


def norm_of(w: Work) -> Array:
    """Return the norm itself, ``[T, 1]``."""
    order = np.float32(w.rule.order)
    powers: Array = np.abs(w.gathered) if order == 1 else np.abs(w.gathered) ** order
    total: Array = powers.sum(axis=1, keepdims=True)
    return total if order == 1 else total ** (1 / order)


def renormalized(w: Work) -> Array:
    """Divide by the norm if the configuration renormalises."""
    return w.gathered if w.config.renormalize is None else w.gathered / w.norm


def scaled(w: Work) -> Array:
    """Multiply by the routed scaling factor."""
    return w.renormalized * np.float32(w.config.scale)


def weights(w: Work) -> Array:
    """Multiply by each expert's own scale."""
    if w.per_expert_scale is None:
        return w.scaled
    scales: Array = np.take(w.per_expert_scale, w.expert_ids, mode="clip")
    return w.scaled * scales


def answer(w: Work) -> Routing:
    """Answer in the layout ``[T, K]``."""
    if w.config.shared_slots is None:
        return Routing(weights=w.weights, expert_ids=w.expert_ids, logits=w.reported_logits)
    return behind(w, w.fused_weights, w.fused_ids)


def behind(w: Work, weights: Array, ids: Array) -> Routing:
    """Answer with shared slots of these weights and ids ``[T, S]`` behind the routed ones."""
    return Routing(
        weights=np.concatenate([w.weights, weights.astype(w.weights.dtype)], axis=1),
        expert_ids=np.concatenate([w.expert_ids, ids], axis=1),
        logits=w.reported_logits,
    )


def fused_weights(w: Work) -> Array:
    """Weigh every shared slot alike."""
    return np.full((w.num_tokens, w.fused.count), w.fused.weight, np.float32)


def fused_ids(w: Work) -> Array:
    """Number shared experts behind the routed ones."""
    ids = w.config.num_experts + np.arange(w.fused.count)
    return np.repeat(ids[None], w.num_tokens, axis=0)


RIGHT: dict[str, Stage] = {
    "config": config,
    "valid": checked,
    "dispatched": lambda w: dispatched_config(w.requested, w.inputs),
    "hidden": lambda w: w.inputs.hidden,
    "gate_weight": lambda w: w.inputs.gate_weight,
    "gate_bias": lambda w: w.inputs.gate_bias,
    "gate_delta": lambda w: w.inputs.gate_delta,
    "selection_bias": lambda w: w.inputs.selection_bias,
    "per_expert_scale": lambda w: w.inputs.per_expert_scale,
    "gate_input": gate_input,
    "logits": logits,
    "operated": operated,
    "scores": lambda w: SCORE_FUNCTIONS[w.config.score](w.operated),
    "biased": biased,
    "group_scores": group_scores,
    "kept_groups": lambda w: top_k(w.group_scores, w.groups.kept),
    "kept": kept,
    "competing": competing,
    "expert_ids": expert_ids,
    "gathered": gathered,
    "norm": norm,
    "renormalized": renormalized,
    "scaled": scaled,
    "weights": weights,
    "reported_logits": lambda w: None,
    "fused_weights": fused_weights,
    "fused_ids": fused_ids,
    "answer": answer,
    "parting": lambda w: None,
    **SHARED,
}
"""Every stage of a right router, by name."""
