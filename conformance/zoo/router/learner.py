"""The zoo's learner: a layer's experts and their gradients in NumPy, made of stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.router.functions import Array, sigmoid
from moe_routing.conformance.zoo.router.runner import ACTIVATE, RunnerWork, erf
from moe_routing.conformance.zoo.router.staged import StagedAdapter, StagedWork
from moe_routing.reference import ExpertGradients, ExpertsConfig, ExpertsInputs
from moe_routing.reference.activations import CLAMPED, TANH_CUBIC, TANH_SLOPE


class LearnerWork(StagedWork):
    """One call of experts' gradients in progress.

    ``forward`` is the right runner's work on the call, ``own`` the stages of the way back that the
    learner has in place of the right ones. With N present routes, sorted by expert: ``at_rows``
    and ``at_answers [N, H]`` are the gradients of the rows and of the experts' answers,
    ``at_inner``, ``at_gate`` and ``at_up [N, F]`` those of the products, ``at_x [N, H]`` that of
    what goes into an expert; ``of_*`` those of the inputs.
    """

    at_rows: Array
    at_answers: Array
    at_inner: Array
    at_gate: Array
    at_up: Array
    at_x: Array
    of_hidden: Array | None
    of_weights: Array | None
    of_gate_weight: Array | None
    of_up_weight: Array | None
    of_down_weight: Array | None
    of_gate_bias: Array | None
    of_up_bias: Array | None
    of_down_bias: Array | None
    answer: Any

    def __init__(
        self,
        own: Mapping[str, LearnerStage],
        forward: RunnerWork,
        cotangent: Array,
        memory: dict[Any, Any],
    ) -> None:
        super().__init__("a learner", LEARNING, own, memory)
        self.forward, self.cotangent = forward, cotangent

    @property
    def config(self) -> ExpertsConfig:
        """The configuration, claimed."""
        return self.forward.config

    @property
    def inputs(self) -> ExpertsInputs:
        """The inputs."""
        return self.forward.inputs

    @property
    def late(self) -> bool:
        """Whether the routing weight is on the output."""
        return self.config.weight_on == "output"

    def stored(self, values: Array) -> Array:
        """Round to the dtype of the call."""
        return self.forward.stored(values)


LearnerStage = Callable[[LearnerWork], Any]


class StagedLearner(StagedAdapter):
    """An adapter that gives the gradients of experts; its answer is the last of its stages."""

    methods = ("expert_gradients",)

    def expert_gradients(
        self, config: ExpertsConfig, inputs: ExpertsInputs, cotangent: Array
    ) -> Any:
        """Return the stage ``answer``. Errors: ``Unsupported``."""
        self._capabilities.computes.require(config, inputs)
        forward = RunnerWork({}, config, inputs, {})
        return LearnerWork(self._stages, forward, cotangent, self.memory).answer


def at_answers(w: LearnerWork) -> Array:
    """Return the gradient of what each row's expert answers."""
    return w.stored(w.at_rows * w.forward.scale) if w.late else w.at_rows


def back(w: LearnerWork, at: Array, name: str) -> Array:
    """Return each row's gradient times the matrix of its owner, in float32, and stored."""
    matrix, owners = w.forward.matrices[f"{name}_weight"], w.forward.owners
    out = np.zeros((len(at), matrix.shape[2]), np.float32)
    for expert in np.unique(owners):
        rows = owners == expert
        out[rows] = at[rows] @ matrix[expert]
    return w.stored(out)


def of_matrix(w: LearnerWork, at: Array, x: Array) -> Array:
    """Return the gradient of a matrix: the sum over the rows of each expert, in float32."""
    out = np.zeros((w.config.num_experts, at.shape[1], x.shape[1]), np.float32)
    for expert in np.unique(w.forward.owners):
        rows = w.forward.owners == expert
        out[expert] = at[rows].T @ x[rows]
    return w.stored(out)


def of_bias(w: LearnerWork, at: Array, name: str) -> Array | None:
    """Return the gradient of a bias, or None where there is none."""
    if f"{name}_bias" not in w.forward.matrices:
        return None
    out = np.zeros((w.config.num_experts, at.shape[1]), np.float32)
    np.add.at(out, w.forward.owners, at)
    return w.stored(out)


def _silu(x: Array) -> Array:
    s = sigmoid(x)
    return np.asarray(s * (1 + x * (1 - s)))


def _gelu(x: Array) -> Array:
    share = np.float32(0.5) * (1 + erf(x * np.float32(0.5**0.5)))
    density = np.exp(-np.float32(0.5) * x * x) * np.float32((2 * np.pi) ** -0.5)
    return np.asarray(share + x * density)


def _gelu_tanh(x: Array) -> Array:
    t = np.tanh(np.float32(TANH_SLOPE) * (x + np.float32(TANH_CUBIC) * x * x * x))
    rise = np.float32(TANH_SLOPE) * (1 + np.float32(3 * TANH_CUBIC) * x * x)
    half = np.float32(0.5)
    return np.asarray(half * (1 + t) + half * x * (1 - t * t) * rise)


SLOPES: dict[str, Callable[[Array], Array]] = {
    "silu": _silu,
    "gelu": _gelu,
    "gelu-tanh": _gelu_tanh,
    "relu": lambda x: np.asarray(x > 0, np.float32),
}
"""The derivatives of the activations in float32."""


def at_gate(w: LearnerWork, slopes: Mapping[str, Callable[[Array], Array]] = SLOPES) -> Array:
    """Go back to the gate, through the activation."""
    gate, up = w.forward.gate, w.forward.up
    if w.config.activation != CLAMPED:
        at = w.stored(w.at_inner * up)
        return w.stored(at * slopes[w.config.activation](gate))
    limit, alpha = np.float32(w.config.limit), np.float32(w.config.alpha)
    held = np.minimum(gate, limit)
    at = w.stored(w.at_inner * (np.clip(up, -limit, limit) + 1))
    return w.stored(np.where(gate <= limit, at * _silu(alpha * held), np.float32(0)))


def at_up(w: LearnerWork, slopes: Mapping[str, Callable[[Array], Array]] = SLOPES) -> Array:
    """Go back to up: through the activation, where there is no gate."""
    up, activation = w.forward.up, w.config.activation
    if not w.config.gated:
        return w.stored(w.at_inner * slopes[activation](up))
    if activation != CLAMPED:
        return w.stored(w.at_inner * w.stored(ACTIVATE[activation](w.forward.gate)))
    limit = np.float32(w.config.limit)
    held = np.minimum(w.forward.gate, limit)
    opened = w.stored(held * sigmoid(np.float32(w.config.alpha) * held))
    return w.stored(np.where(np.abs(up) <= limit, w.at_inner * opened, np.float32(0)))


def at_x(w: LearnerWork) -> Array:
    """Return the gradient of what goes into each row's expert."""
    from_up = back(w, w.at_up, "up")
    return w.stored(back(w, w.at_gate, "gate") + from_up) if w.config.gated else from_up


def of_hidden(w: LearnerWork) -> Array:
    """Add the rows up by token, in float32, and store."""
    rows = w.at_x if w.late else w.stored(w.at_x * w.forward.scale)
    total = np.zeros(w.inputs.hidden.shape, np.float32)
    np.add.at(total, w.forward.tokens, rows)
    return w.stored(total)


def of_weights(w: LearnerWork) -> Array:
    """Return the gradient of each route's weight: its cotangent times what its expert answers."""
    if w.late:
        each = (w.at_rows * w.forward.answers).sum(axis=1, dtype=np.float32)
    else:
        each = (w.at_x * w.inputs.hidden[w.forward.tokens]).sum(axis=1, dtype=np.float32)
    flat = np.zeros(w.inputs.weights.size, np.float32)
    flat[w.forward.routes] = each
    return w.stored(flat.reshape(w.inputs.weights.shape))


def answer(w: LearnerWork) -> ExpertGradients:
    """Answer with what there is."""
    names = [name.removeprefix("of_") for name in LEARNING if name.startswith("of_")]
    return ExpertGradients(**{name: getattr(w, f"of_{name}") for name in names})


LEARNING: dict[str, LearnerStage] = {
    "at_rows": lambda w: w.cotangent[w.forward.tokens],
    "at_answers": at_answers,
    "at_inner": lambda w: back(w, w.at_answers, "down"),
    "at_gate": at_gate,
    "at_up": at_up,
    "at_x": at_x,
    "of_hidden": of_hidden,
    "of_weights": of_weights,
    "of_gate_weight": lambda w: of_matrix(w, w.at_gate, w.forward.x) if w.config.gated else None,
    "of_up_weight": lambda w: of_matrix(w, w.at_up, w.forward.x),
    "of_down_weight": lambda w: of_matrix(w, w.at_answers, w.forward.inner),
    "of_gate_bias": lambda w: of_bias(w, w.at_gate, "gate") if w.config.gated else None,
    "of_up_bias": lambda w: of_bias(w, w.at_up, "up"),
    "of_down_bias": lambda w: of_bias(w, w.at_answers, "down"),
    "answer": answer,
}
"""The right stages of experts' gradients, by name."""
