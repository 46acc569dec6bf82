"""Adapters that answer in another form, or not at all; a few of the forms are right.

Named on the command line as ``wrong_answers.py:Name``, after a key of ``ANSWERS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from moe_routing.implementations import Capabilities, Claim, FlatRouting, RoutingMap, Unsupported
from moe_routing.reference import RouterConfig, RouterInputs, Routing, route


class Shapeless:
    """Says that it is an array, and has no shape."""

    dtype, shape = "float32", None


class Unreadable:
    """Has all that an array has, but for its numbers."""

    dtype, shape = "float32", (1, 1)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise KeyError("numbers")


class Unspeakable(Exception):
    """An exception without a readable message."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Stop(BaseException):
    """What a test framework raises to end a test: no Exception."""


class Answers:
    """Claims the whole specification, and passes the reference's answer through ``change``."""

    def __init__(self, name: str, change: Callable[[Routing, RouterConfig], Any]) -> None:
        self.name, self.change = name, change

    def capabilities(self) -> Capabilities:
        claims = CLAIMS.get(self.name, (Claim(),))
        return Capabilities(claims=claims, logits="routed" if self.name in WITH_LOGITS else "none")

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Any:
        return self.change(route(RouterConfig(**vars(config)), inputs), config)


def _raising(error: BaseException) -> Callable[[Routing, RouterConfig], Any]:
    def change(right: Routing, config: RouterConfig) -> Any:
        raise error

    return change


def _flat(right: Routing, **changes: Any) -> FlatRouting:
    tokens, top = right.expert_ids.shape
    answer = FlatRouting(
        scores=right.weights.ravel(),
        token_indices=np.repeat(np.arange(tokens, dtype=np.int32), top),
        expert_indices=right.expert_ids.ravel().astype(np.int32),
        num_tokens=tokens,
        logits=right.logits,
    )
    return replace(answer, **{name: change(answer) for name, change in changes.items()})


def _dense(right: Routing, **changes: Any) -> RoutingMap:
    probs, routing_map = np.zeros(right.logits.shape), np.zeros(right.logits.shape, dtype=bool)
    np.put_along_axis(probs, right.expert_ids, right.weights, axis=1)
    np.put_along_axis(routing_map, right.expert_ids, True, axis=1)
    answer = RoutingMap(probs=probs, routing_map=routing_map, logits=right.logits)
    return replace(answer, **{name: change(answer) for name, change in changes.items()})


def _tensors(right: Routing, **options: Any) -> Routing:
    import torch

    weights, ids = torch.from_numpy(right.weights), torch.from_numpy(right.expert_ids)
    if options.get("grad"):
        weights.requires_grad_()
        return Routing(weights=weights * 1.0, expert_ids=ids, logits=torch.tensor(right.logits))
    return Routing(weights=weights.to(**options), expert_ids=ids.to(**options))


def _with(name: str, change: Callable[[Any, RouterConfig], Any]) -> Callable[..., Routing]:
    return lambda right, config: replace(right, **{name: change(getattr(right, name), config)})


def _wider(values: Any, config: RouterConfig) -> Any:
    return np.concatenate([values, values[:, :1]], axis=1)


def _first(value: Any) -> Callable[[Any, RouterConfig], Any]:
    """Write ``value``, or its result for the configuration, into the first slot of every token."""

    def change(values: Any, config: RouterConfig) -> Any:
        changed = np.array(values)
        changed[:, 0] = value(config) if callable(value) else value
        return changed

    return change


def _duplicate(ids: Any, config: RouterConfig) -> Any:
    return np.repeat(ids[:, :1], ids.shape[1], axis=1)


ANSWERS: dict[str, Callable[[Routing, RouterConfig], Any]] = {
    # right, in another dress
    "GradTensors": lambda right, config: _tensors(right, grad=True),
    "Flat": lambda right, config: _flat(right),
    "Dense": lambda right, config: _dense(right),
    "Int32Ids": _with("expert_ids", lambda ids, config: ids.astype(np.int32)),
    "Float32Weights": _with("weights", lambda weights, config: weights.astype(np.float32)),
    "SlotsReversed": lambda right, config: replace(
        right, weights=right.weights[:, ::-1].copy(), expert_ids=right.expert_ids[:, ::-1].copy()
    ),
    # not an answer
    "ReturnsNone": lambda right, config: None,
    "ReturnsTuple": lambda right, config: (right.weights, right.expert_ids),
    "ReturnsList": lambda right, config: [right],
    "ReturnsDict": lambda right, config: vars(right),
    "WeightsOfList": _with("weights", lambda weights, config: weights.tolist()),
    "WeightsNone": _with("weights", lambda weights, config: None),
    "IdsNone": _with("expert_ids", lambda ids, config: None),
    "WeightsTooWide": _with("weights", _wider),
    "WeightsScalar": _with("weights", lambda weights, config: np.float64(1.0)),
    "IdsTooWide": _with("expert_ids", _wider),
    "IdsFlat": _with("expert_ids", lambda ids, config: ids.ravel()),
    "LogitsTooWide": _with("logits", _wider),
    "FloatIds": _with("expert_ids", lambda ids, config: ids.astype(float)),
    "BoolIds": _with("expert_ids", lambda ids, config: ids.astype(bool)),
    "IntWeights": _with("weights", lambda weights, config: np.ones_like(weights, dtype=int)),
    "ComplexWeights": _with("weights", lambda weights, config: weights.astype(complex)),
    "ObjectWeights": _with("weights", lambda weights, config: weights.astype(object)),
    "TextWeights": _with("weights", lambda weights, config: weights.astype(str)),
    "WeightsShapeless": _with("weights", lambda weights, config: Shapeless()),
    "WeightsUnreadable": _with("weights", lambda weights, config: Unreadable()),
    "MetaTensors": lambda right, config: _tensors(right, device="meta"),
    "FlatLacksRoutes": lambda right, config: _flat(
        right, token_indices=lambda flat: np.zeros_like(flat.token_indices)
    ),
    "FlatMiscounts": lambda right, config: _flat(
        right, num_tokens=lambda flat: flat.num_tokens + 1
    ),
    "FlatMiscountsTwice": lambda right, config: _flat(
        right, num_tokens=lambda flat: np.full(2, flat.num_tokens)
    ),
    "FlatTooShort": lambda right, config: _flat(right, scores=lambda flat: flat.scores[1:]),
    "DenseOneMore": lambda right, config: _dense(
        right, routing_map=lambda dense: np.ones_like(dense.routing_map)
    ),
    "DenseOfFloats": lambda right, config: _dense(
        right, routing_map=lambda dense: dense.routing_map.astype(float)
    ),
    # an answer, and a wrong one
    "Uint8Ids": _with("expert_ids", lambda ids, config: ids.astype(np.uint8)),
    "NanWeights": _with("weights", _first(np.nan)),
    "InfWeights": _with("weights", _first(np.inf)),
    "NegativeIds": _with("expert_ids", _first(-1)),
    "IdsBeyond": _with("expert_ids", _first(lambda config: config.num_experts)),
    "LeastIds": _with("expert_ids", _first(np.iinfo(np.int64).min)),
    "DuplicateIds": _with("expert_ids", _duplicate),
    "NoLogits": _with("logits", lambda logits, config: None),
    "NanLogits": _with("logits", _first(np.nan)),
    "FlatOfInt64": lambda right, config: _flat(
        right, token_indices=lambda flat: flat.token_indices.astype(np.int64)
    ),
    "FlatBackwards": lambda right, config: _flat(
        right,
        scores=lambda flat: flat.scores[::-1].copy(),
        token_indices=lambda flat: flat.token_indices[::-1].copy(),
        expert_indices=lambda flat: flat.expert_indices[::-1].copy(),
    ),
    "FlatMispaired": lambda right, config: _flat(right, scores=lambda flat: np.sort(flat.scores)),
    "DenseLeaks": lambda right, config: _dense(
        right, probs=lambda dense: dense.probs + 0.01 * ~dense.routing_map
    ),
    # no answer at all
    "RaisesValueError": _raising(ValueError("no\n  such   luck")),
    "RaisesKeyError": _raising(KeyError("gate")),
    "RaisesRecursionError": _raising(RecursionError("too deep")),
    "RaisesUnsupported": _raising(Unsupported("not today")),
    "RaisesAtLength": _raising(RuntimeError("far too much to say " * 200)),
    "RaisesUnspeakable": _raising(Unspeakable()),
    "Exits": _raising(SystemExit(0)),
    "Stops": _raising(Stop("enough")),
}
"""What is made of the right answer, by the attribute that names the adapter."""

SELECTING = Claim(expert_table=(False,))
CLAIMS = {"Dense": (SELECTING,)}
"""The claims of those that do not claim everything."""

WITH_LOGITS = ("LogitsTooWide", "NoLogits", "NanLogits")
"""Those that claim to return the logits that they routed."""

globals().update({name: Answers(name, change) for name, change in ANSWERS.items()})
