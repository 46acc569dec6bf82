"""The zoo's runner of experts: a right layer in NumPy, made of stages that can be replaced."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.router.functions import Array, sigmoid
from moe_routing.conformance.zoo.router.staged import StagedAdapter, StagedWork
from moe_routing.reference import ExpertsConfig, ExpertsInputs
from moe_routing.reference.activations import CLAMPED, TANH_CUBIC, TANH_SLOPE
from moe_routing.reference.formats import INPUT_FORMATS

_erf = np.frompyfunc(math.erf, 1, 1)


class RunnerWork(StagedWork):
    """One call of experts in progress.

    ``config`` and ``inputs`` are the call's, ``memory`` what is stored between calls, and ``own``
    the stages that the runner has in place of the right ones. With N present routes, sorted by
    expert: ``ids [T, K]``, ``weights [T, K]``, ``routes [N]`` (their numbers), ``owners [N]``
    (the expert whose matrices a row meets), ``tokens [N]``, ``scale [N, 1]``, ``matrices`` (by
    name, each ``[E, ...]``), ``x [N, H]``, ``gate`` and ``up [N, F]``, ``inner [N, F]``,
    ``answers [N, H]``, ``weighted [N, H]``, ``output [T, H]``, ``answer``.
    """

    ids: Array
    weights: Array
    routes: Array
    owners: Array
    tokens: Array
    scale: Array
    matrices: Mapping[str, Array]
    x: Array
    gate: Array
    up: Array
    inner: Array
    answers: Array
    weighted: Array
    output: Array
    answer: Any

    def __init__(
        self,
        own: Mapping[str, RunnerStage],
        config: ExpertsConfig,
        inputs: ExpertsInputs,
        memory: dict[Any, Any],
    ) -> None:
        super().__init__("a runner", RUNNING, own, memory)
        self.config, self.inputs = config, inputs

    @property
    def top_k(self) -> int:
        """K."""
        return self.inputs.top_k

    def stored(self, values: Array) -> Array:
        """Round to the dtype of the call."""
        with np.errstate(all="ignore"):
            return INPUT_FORMATS[self.inputs.dtype].round(values).astype(np.float32)


RunnerStage = Callable[[RunnerWork], Any]


class StagedRunner(StagedAdapter):
    """An adapter that only runs experts; its answer is the last of its stages."""

    def experts(self, config: ExpertsConfig, inputs: ExpertsInputs) -> Any:
        """Return the stage ``answer``. Errors: ``Unsupported``."""
        self._capabilities.computes.require(config, inputs)
        return RunnerWork(self._stages, config, inputs, self.memory).answer


def by_expert(w: RunnerWork) -> Array:
    """Return the routes that have an expert and a weight, sorted by expert, stable."""
    ids = w.ids.reshape(-1)
    idle = (w.weights.reshape(-1) == 0) & (w.config.weight_on == "output")
    order = np.argsort(np.where(idle, -1, ids), kind="stable")
    return order[np.count_nonzero((ids < 0) | idle) :]


def gathered(w: RunnerWork) -> Array:
    """Return the hidden state of every row, weighted where that is on the input."""
    x = w.inputs.hidden[w.tokens]
    return w.stored(x * w.scale) if w.config.weight_on == "input" else x


def product(w: RunnerWork, x: Array, name: str) -> Array:
    """Return each row times the matrix of its owner, in float32, and not stored."""
    matrix = w.matrices[f"{name}_weight"]
    out = np.zeros((len(x), matrix.shape[1]), np.float32)
    for expert in np.unique(w.owners):
        rows = w.owners == expert
        out[rows] = x[rows] @ matrix[expert].T
    return out


def linear(w: RunnerWork, x: Array, name: str) -> Array:
    """Return a product, stored, and its bias added and stored again."""
    bias = w.matrices.get(f"{name}_bias")
    out = w.stored(product(w, x, name))
    return out if bias is None else w.stored(out + bias[w.owners])


def erf(x: Array) -> Array:
    """Return the error function in float32."""
    return np.asarray(_erf(x.astype(np.float64)), np.float64).astype(np.float32)


ACTIVATE: dict[str, Callable[[Array], Array]] = {
    "silu": lambda x: x * sigmoid(x),
    "gelu": lambda x: x * np.float32(0.5) * (1 + erf(x * np.float32(0.5**0.5))),
    "gelu-tanh": lambda x: (
        x
        * np.float32(0.5)
        * (1 + np.tanh(np.float32(TANH_SLOPE) * (x + np.float32(TANH_CUBIC) * x * x * x)))
    ),
    "relu": lambda x: np.maximum(x, 0),
}
"""The activations in float32."""


def activated(w: RunnerWork, activate: Mapping[str, Callable[[Array], Array]] = ACTIVATE) -> Array:
    """Return what comes between the products."""
    if not w.config.gated:
        return w.stored(activate[w.config.activation](w.up))
    if w.config.activation == CLAMPED:
        return clamped(w, w.gate, w.up, w.config.limit, w.config.alpha)
    return w.stored(w.stored(activate[w.config.activation](w.gate)) * w.up)


def clamped(w: RunnerWork, gate: Array, up: Array, limit: float, alpha: float) -> Array:
    """Return gpt-oss's activation."""
    gate, up = np.minimum(gate, np.float32(limit)), np.clip(up, -limit, limit)
    opened = w.stored(gate * sigmoid(w.stored(np.float32(alpha) * gate)))
    return w.stored(opened * (up + 1))


def summed(w: RunnerWork) -> Array:
    """Return the rows added up by token, in float32, and stored."""
    total = np.zeros(w.inputs.hidden.shape, np.float32)
    np.add.at(total, w.tokens, w.weighted)
    return w.stored(total)


def weighed(w: RunnerWork) -> Array:
    """Return each row's answer times its weight, unless that was on the input."""
    return w.answers if w.config.weight_on == "input" else w.stored(w.answers * w.scale)


RUNNING: dict[str, RunnerStage] = {
    "ids": lambda w: w.inputs.expert_ids.copy(),
    "weights": lambda w: w.inputs.weights.copy(),
    "routes": by_expert,
    "owners": lambda w: w.ids.reshape(-1)[w.routes],
    "tokens": lambda w: w.routes // w.top_k,
    "scale": lambda w: w.weights.reshape(-1)[w.routes, None],
    "matrices": lambda w: w.inputs.arrays(),
    "x": gathered,
    "gate": lambda w: linear(w, w.x, "gate"),
    "up": lambda w: linear(w, w.x, "up"),
    "inner": activated,
    "answers": lambda w: linear(w, w.inner, "down"),
    "weighted": weighed,
    "output": summed,
    "answer": lambda w: w.output,
}
"""The right stages of a layer's experts, by name."""
