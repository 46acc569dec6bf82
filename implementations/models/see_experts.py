"""The call of experts that a call of a block shows, and its gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from moe_routing.implementations.experts.models import MODELS, USUAL
from moe_routing.implementations.experts.registered import EAGER
from moe_routing.implementations.models.arrays import array, dtype_of, of_dtype, picked, rows
from moe_routing.implementations.models.clamping import unclamped
from moe_routing.implementations.models.experts import NotKnown
from moe_routing.implementations.models.heard import WORK, Heard
from moe_routing.implementations.models.seen import SeenExpertGradients, SeenExperts
from moe_routing.reference import ExpertsConfig, ExpertsInputs

_NUMBERS = 2**23
"""About how many numbers of matrices' gradients are judged of one call."""


def see_experts(heard: Heard) -> SeenExperts:
    """Return a call of experts. Errors: ``NotKnown``, ``CannotRead``."""
    call = heard.call
    if call.experts_output is None:
        raise NotKnown("its experts were not called")
    if call.site.row.reads == "dense":
        raise NotKnown("its experts are given every token: the layer's sum is judged")
    kept = _ours(heard, heard.affordable(heard.routes[0].shape[1]))
    config, inputs = _inputs(heard, kept)
    copies = heard.routes[0] >= heard.held.config.num_experts
    return SeenExperts(
        path=call.site.experts_path,
        block=call.site.path,
        tokens=kept,
        adapter=_adapter(call.site.experts),
        device=call.device,
        config=config,
        inputs=inputs,
        copied=np.where(copies[kept], heard.routes[1][kept], 0.0) if copies.any() else None,
        output=rows(call.experts_output)[kept],
        products=heard.products,
    )


def see_token_gradients(heard: Heard) -> SeenExpertGradients:
    """Return the gradients of hidden states and weights. Errors: as ``see_experts``."""
    _check(heard)
    kept = _ours(heard, heard.affordable(heard.routes[0].shape[1]))
    back, found = heard.call.back, {}
    if "experts.hidden" in back:
        found["hidden"] = rows(back["experts.hidden"])[kept]
    if "experts.weights" in back:
        found["weights"] = back["experts.weights"].reshape(heard.routes[1].shape)[kept]
    if not found:
        raise NotKnown("no gradient came back to what its experts were given")
    return _gradients(heard, kept, found, *_inputs(heard, kept))


def see_matrix_gradients(heard: Heard) -> SeenExpertGradients:
    """Return the gradients of matrices, of as many experts as can be paid for. Errors: as above."""
    _check(heard)
    ids, whole = heard.routes[0], heard.held
    named = {n: t for n, t in whole.parameters.items() if t.grad is not None}
    if not named:
        raise NotKnown("its matrices need no gradient")
    experts = _some_experts(heard)
    tokens = np.flatnonzero(np.isin(ids, experts).any(axis=1))
    if whole.limit != float("inf"):
        part = rows(heard.given()[0])[tokens]
        if not unclamped(part, ids[tokens], whole.matrices, whole.limit).all():
            raise NotKnown("some of its gates are clamped")
    found = {k: g[experts] for n, t in named.items() for k, g in whole.split(n, t.grad).items()}
    return _gradients(heard, tokens, found, *_inputs(heard, tokens, experts))


def _check(heard: Heard) -> None:
    """Raise ``NotKnown`` where the gradients of experts cannot be judged."""
    call = heard.call
    if heard.ungraded:
        raise NotKnown(heard.ungraded)
    if call.experts_output is None or "experts.output" not in call.back:
        raise NotKnown("no gradient came back to the output of its experts")
    if heard.times.get(id(call.site.experts)) != 1 or call.strangers:
        raise NotKnown("its experts were called several times, or by several blocks")
    if (heard.routes[0] >= heard.held.config.num_experts).any():
        raise NotKnown("some of its experts return what they are given")


def _some_experts(heard: Heard) -> Any:
    """Return experts with routes, the fewest first, whose gradients can be paid for."""
    ids = heard.routes[0]
    experts, counts = np.unique(ids[ids >= 0], return_counts=True)
    size = int(heard.held.matrices["down_weight"][0].numel()) * 3
    order = np.argsort(counts, kind="stable")
    paid = np.cumsum(counts[order] * size) <= WORK
    paid &= np.arange(1, len(order) + 1) * size <= _NUMBERS
    return np.sort(experts[order[: max(1, int(paid.sum()))]])


def _gradients(
    heard: Heard, kept: Any, found: dict[str, Any], config: ExpertsConfig, inputs: ExpertsInputs
) -> SeenExpertGradients:
    call = heard.call
    return SeenExpertGradients(
        path=call.site.experts_path,
        block=call.site.path,
        tokens=kept,
        adapter=_adapter(call.site.experts),
        device=call.device,
        config=config,
        inputs=inputs,
        cotangent=array("the cotangent", rows(call.back["experts.output"])[kept]),
        gradients=found,
        products=heard.products,
    )


def _ours(heard: Heard, most: int) -> Any:
    """Return the tokens whose experts are judged: real ones, whose gates are below a limit."""
    ids, _ = heard.routes
    whole, part = heard.held, rows(heard.given()[0])
    fine = ((ids < whole.config.num_experts + whole.identities) & (ids >= -1)).all(axis=1)
    found = np.flatnonzero(fine)
    if whole.limit != float("inf"):
        found = found[picked(len(found), most)]
        below = unclamped(part[found], ids[found], whole.matrices, whole.limit)
        found = found[below]
    if not len(found):
        raise NotKnown("no token whose experts can be judged")
    return found[picked(len(found), most)]


def _inputs(heard: Heard, kept: Any, some: Any = None) -> tuple[ExpertsConfig, ExpertsInputs]:
    """Return the call at some tokens, of the experts that these have, or of ``some`` of them."""
    whole = heard.held
    hidden = rows(heard.given()[0])
    ids, weights = heard.routes[0][kept], heard.routes[1][kept]
    ours = ids < whole.config.num_experts if some is None else np.isin(ids, some)
    ids = np.where(ours, ids, -1)
    weights = np.where(ids < 0, np.float32(0), weights)
    experts = np.unique(ids[ids >= 0])
    if not len(experts):
        raise NotKnown("no token has a route")
    config = ExpertsConfig(**{**vars(whole.config), "num_experts": len(experts)})
    inputs: ExpertsInputs = of_dtype(
        ExpertsInputs,
        dtype_of(hidden),
        {
            "hidden": array("hidden states", hidden[kept]),
            "expert_ids": np.where(ids < 0, -1, np.searchsorted(experts, ids)),
            "weights": weights,
            **{n: array(n, each[experts]) for n, each in whole.matrices.items()},
        },
    )
    return config, inputs


def _adapter(experts: Any) -> str:
    """Return the adapter that runs a module's function: by its name, and by how weights lie."""
    config = getattr(experts, "config", None)
    name = getattr(config, "_experts_implementation", None) or EAGER
    at = next((each for each in MODELS if MODELS[each].module.endswith(f".{_class(experts)}")), "")
    return f"experts:{name}@{at}" if at not in ("", USUAL) else f"experts:{name}"


def _class(experts: Any) -> str:
    return type(experts).__name__
