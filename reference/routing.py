"""The whole pipeline, from hidden states to experts and weights (docs/spec/index.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from moe_routing.reference import groups, scores, selection, weights
from moe_routing.reference import logits as gate
from moe_routing.reference.config import RouterConfig
from moe_routing.reference.formats import Bools, Floats, Ids
from moe_routing.reference.inputs import RouterInputs, check_inputs


@dataclass(frozen=True, kw_only=True, eq=False)
class Routing:
    """A router's answer: K experts a token, with their weights.

    Shapes: ``weights [T, K]`` floating point, ``expert_ids [T, K]`` integer, and
    ``logits [T, E]`` (after linear bias and delta, before the logit op) or None where
    the router does not return them. The order of the K slots is free; a slot's weight
    belongs to the slot's expert. ``kernel`` names what served the call, where a backend
    promises that. The reference returns float64 and int64; adapters return the backend's
    native arrays unconverted.
    """

    weights: Any
    expert_ids: Any
    logits: Any = None
    kernel: Any = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Stages:
    """Every intermediate of one call, in pipeline order, all float64.

    ``products`` are what the logits sum, ``x W^T`` and with a delta ``x d^T`` (empty where the
    logits were given); ``logits`` as ``Routing.logits`` (``[T, E]``, like all that follow
    unless stated), ``operated`` after the logit op, ``scores``, ``biased`` with the selection bias,
    ``group_scores [T, count]`` or None, ``kept`` (bool), ``competing`` with excluded
    experts at the group fill, ``expert_ids [T, K]``, ``gathered [T, K]``,
    ``renormalized [T, K]`` and ``weights [T, K]``.
    """

    products: tuple[Floats, ...]
    logits: Floats
    operated: Floats
    scores: Floats
    biased: Floats
    group_scores: Floats | None
    kept: Bools
    competing: Floats
    expert_ids: Ids
    gathered: Floats
    renormalized: Floats
    weights: Floats


def route(config: RouterConfig, inputs: RouterInputs) -> Routing:
    """Route ``inputs`` as ``config`` says: the reference answer.

    Computes in float64, so it is one of the right answers for every precision the
    configuration permits; ties go to the lowest index. Errors: ``ValueError`` where the
    inputs do not fit the configuration. Source: ``docs/spec/``.
    """
    done = stages(config, inputs)
    weights, ids = with_shared_slots(config, done.weights, done.expert_ids)
    return Routing(weights=weights, expert_ids=ids, logits=done.logits)


def with_shared_slots(config: RouterConfig, weights: Floats, ids: Ids) -> tuple[Floats, Ids]:
    """Return weights and ids ``[T, K]`` with those of the shared slots behind, if there are any."""
    shared = config.shared_slots
    if shared is None:
        return weights, ids
    shape = len(ids), shared.count
    more = np.broadcast_to(config.num_experts + np.arange(shared.count), shape)
    heavy = np.full(shape, shared.weight, weights.dtype)
    return np.concatenate([weights, heavy], axis=1), np.concatenate([ids, more], axis=1)


def stages(config: RouterConfig, inputs: RouterInputs, *, logits: Floats | None = None) -> Stages:
    """Route ``inputs`` and return every intermediate; ``logits [T, E]`` replace the gate's.

    Errors: as ``route``.
    """
    check_inputs(config, inputs)
    with np.errstate(all="ignore"):
        products = gate.gate_products(config, inputs) if logits is None else ()
        raw = gate.gate_logits(products, inputs) if logits is None else logits
        return later_stages(config, inputs, products, raw)


def later_stages(
    config: RouterConfig, inputs: RouterInputs, products: tuple[Floats, ...], raw: Floats
) -> Stages:
    """Return the stages from the logits ``raw`` on, which may be some rows of a call's own."""
    operated = gate.logit_op(config, raw)
    scored = scores.SCORE_FUNCTIONS[config.score](operated)
    biased = scored if inputs.selection_bias is None else scored + inputs.selection_bias
    group_scores, kept, competing = None, np.ones(biased.shape, dtype=bool), biased
    if config.groups is not None and not config.groups.from_each:
        group_scores = groups.group_scores(config.groups, biased)
        kept = groups.kept_experts(config.groups, group_scores, config.num_experts)
        competing = np.where(kept, biased, config.groups.fill)
    ids = _select(config, inputs, competing)
    gathered = weights.gather_weights(config, operated, scored, kept, ids)
    renormalized = weights.renormalize(config.renormalize, gathered)
    return Stages(
        products=products,
        logits=raw,
        operated=operated,
        scores=scored,
        biased=biased,
        group_scores=group_scores,
        kept=kept,
        competing=competing,
        expert_ids=ids,
        gathered=gathered,
        renormalized=renormalized,
        weights=weights.scale(config, inputs, renormalized, ids),
    )


def _select(config: RouterConfig, inputs: RouterInputs, competing: Floats) -> Ids:
    if inputs.expert_table is not None:
        return inputs.expert_table[inputs.token_ids]
    groups = config.groups
    if groups is not None and groups.from_each:
        return selection.top_of_each(competing, config.top_k, groups.count)
    return selection.top_k(competing, config.top_k)
