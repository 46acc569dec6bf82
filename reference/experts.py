"""Experts: what the chosen experts make of a token, weighted and summed.

Source: ``docs/spec/experts.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from moe_routing.reference.activations import (
    ACTIVATIONS,
    CLAMPED,
    PLAIN,
    Activation,
    clamped_swiglu,
)
from moe_routing.reference.arrays import check_exact, freeze, present
from moe_routing.reference.checks import (
    require_choice,
    require_count,
    require_flag,
    require_real,
)
from moe_routing.reference.formats import INPUT_FORMATS, Floats, Ids
from moe_routing.reference.routes import ABSENT, Routes

WeightOn = Literal["output", "input"]
WEIGHT_ON: tuple[str, ...] = get_args(WeightOn)

Array = npt.NDArray[np.float32]

_SHAPES = {
    "hidden": "TH",
    "expert_ids": "TK",
    "weights": "TK",
    "up_weight": "EFH",
    "down_weight": "EHF",
    "gate_weight": "EFH",
    "gate_bias": "EF",
    "up_bias": "EF",
    "down_bias": "EH",
}

_OF_TOKENS = tuple(name for name, letters in _SHAPES.items() if letters.startswith("T"))

OF_EXPERTS = tuple(name for name, letters in _SHAPES.items() if letters.startswith("E"))
"""The arrays that hold a part for each expert."""

IN_DTYPE = tuple(name for name in _SHAPES if name != "expert_ids")
"""The arrays that are stored in ``ExpertsInputs.dtype``."""


@dataclass(frozen=True, kw_only=True)
class ExpertsConfig:
    """What the experts of a layer compute.

    Each of ``num_experts`` is an MLP: gated, ``down(activation(gate x) * up x)``, or without a
    gate, ``down(activation(up x))``. ``weight_on`` says what the routing weight scales: the
    ``output`` of an expert, biases included, or its ``input`` (Llama 4). ``limit`` and ``alpha``
    belong to ``clamped-swiglu`` (gpt-oss), which is gated always. Errors: ``ValueError``
    naming the field.
    """

    num_experts: int
    gated: bool = True
    activation: Activation = "silu"
    weight_on: WeightOn = "output"
    limit: float = 7.0
    alpha: float = 1.702

    def __post_init__(self) -> None:
        require_count("num_experts", self.num_experts, at_least=1)
        require_flag("gated", self.gated)
        require_choice("activation", self.activation, ACTIVATIONS)
        require_choice("weight_on", self.weight_on, WEIGHT_ON)
        require_real("limit", self.limit, above=0.0)
        require_real("alpha", self.alpha, above=0.0)
        if self.activation == CLAMPED and not self.gated:
            raise ValueError(f"Cannot have activation={CLAMPED!r} with gated=False: it is gated")

    def check(self, inputs: ExpertsInputs) -> None:
        """Raise ``ValueError`` where ``inputs`` do not fit, naming both."""
        if inputs.num_experts != self.num_experts:
            raise ValueError(
                f"Expected up_weight of shape [{self.num_experts}, F, H] for "
                f"num_experts={self.num_experts} but got {inputs.up_weight.shape}"
            )
        if self.gated != (inputs.gate_weight is not None):
            raise ValueError(
                f"Expected gate_weight to be {'given' if self.gated else 'None'} for "
                f"gated={self.gated} but got {'None' if self.gated else 'an array'}"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpertsInputs:
    """The arrays of one call of a layer's experts, read-only, with their storage dtype.

    Shapes: ``hidden [T, H]``; ``expert_ids [T, K]`` int64, -1 where a route is absent, and one
    expert may hold several slots of a token; ``weights [T, K]``, 0 where absent;
    ``gate_weight [E, F, H]`` (None where there is no gate), ``up_weight [E, F, H]``,
    ``down_weight [E, H, F]``, and where present ``gate_bias [E, F]``, ``up_bias [E, F]`` and
    ``down_bias [E, H]``.

    Floating-point arrays, the routing weights among them, are float32 and hold only values that
    ``dtype`` (``float32``, ``bfloat16`` or ``float16``) represents. Errors: ``ValueError``
    naming the array, its shape or value, and the rule.
    """

    hidden: Array
    expert_ids: Ids
    weights: Array
    up_weight: Array
    down_weight: Array
    gate_weight: Array | None = None
    gate_bias: Array | None = None
    up_bias: Array | None = None
    down_bias: Array | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        require_choice("dtype", self.dtype, tuple(INPUT_FORMATS))
        freeze(self, _SHAPES, integers=("expert_ids",))
        for name, array in present(self, IN_DTYPE).items():
            check_exact(name, array, self.dtype)
        if self.gate_bias is not None and self.gate_weight is None:
            raise ValueError("Cannot have gate_bias without gate_weight: nothing reads it")
        self.routes.check_below(self.num_experts)

    @property
    def routes(self) -> Routes:
        """The routes of the call: expert ids and weights."""
        return Routes(expert_ids=self.expert_ids, weights=self.weights)

    @property
    def num_tokens(self) -> int:
        """T, the number of tokens."""
        return len(self.hidden)

    @property
    def hidden_size(self) -> int:
        """H, the width of a hidden state."""
        return int(self.hidden.shape[1])

    @property
    def top_k(self) -> int:
        """K, the number of slots of a token."""
        return int(self.expert_ids.shape[1])

    @property
    def num_experts(self) -> int:
        """E, the number of experts."""
        return len(self.up_weight)

    @property
    def width(self) -> int:
        """F, the number of rows of an expert's inner product."""
        return int(self.up_weight.shape[1])

    @property
    def has_biases(self) -> bool:
        """Whether any bias is there."""
        return any(each is not None for each in (self.gate_bias, self.up_bias, self.down_bias))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays that are present, by field name."""
        return present(self, _SHAPES)

    def of_tokens(self, rows: Ids) -> ExpertsInputs:
        """Return the call of some of its tokens, whose weights are not checked again."""
        made = object.__new__(ExpertsInputs)
        for name, value in vars(self).items():
            object.__setattr__(made, name, value[rows] if name in _OF_TOKENS else value)
        for name in _OF_TOKENS:
            getattr(made, name).flags.writeable = False
        return made


def experts(config: ExpertsConfig, inputs: ExpertsInputs) -> Floats:
    """Return the weighted sum of what the chosen experts make of each token, ``[T, H]`` float64.

    Routes that are absent are never computed; a route of weight 0 adds exactly 0 where the
    weight scales the output. Errors: ``ValueError`` where ``inputs`` do not fit ``config``.
    """
    weighted = expert_outputs(config, inputs)
    if config.weight_on == "output":
        scale = inputs.weights[:, :, None].astype(np.float64)
        with np.errstate(all="ignore"):
            weighted = np.where(scale == 0.0, 0.0, scale * weighted)
    with np.errstate(all="ignore"):
        total: Floats = weighted.sum(axis=1)
    return total


def expert_outputs(config: ExpertsConfig, inputs: ExpertsInputs) -> Floats:
    """Return what the expert of every slot answers, ``[T, K, H]`` float64; 0 where absent.

    That is before the weight where it scales the output. Errors: as ``experts``.
    """
    config.check(inputs)
    answers = np.zeros((inputs.num_tokens, inputs.top_k, inputs.hidden_size))
    for expert in np.unique(inputs.expert_ids[inputs.expert_ids != ABSENT]):
        tokens, slots = np.nonzero(inputs.expert_ids == expert)
        x = inputs.hidden[tokens].astype(np.float64)
        if config.weight_on == "input":
            x = x * inputs.weights[tokens, slots, None]
        answers[tokens, slots] = one_expert(config, inputs, int(expert), x)
    return answers


def one_expert(config: ExpertsConfig, inputs: ExpertsInputs, expert: int, x: Floats) -> Floats:
    """Return what one expert makes of ``x [N, H]``, in float64."""
    with np.errstate(all="ignore"):
        up = _linear(x, inputs.up_weight, inputs.up_bias, expert)
        if inputs.gate_weight is None:
            inner = PLAIN[config.activation](up)
        else:
            gate = _linear(x, inputs.gate_weight, inputs.gate_bias, expert)
            inner = (
                clamped_swiglu(gate, up, config.limit, config.alpha)
                if config.activation == CLAMPED
                else PLAIN[config.activation](gate) * up
            )
        return _linear(inner, inputs.down_weight, inputs.down_bias, expert)


def _linear(x: Floats, weight: Array, bias: Array | None, expert: int) -> Floats:
    product: Floats = x @ weight[expert].T.astype(np.float64)
    return product if bias is None else product + bias[expert]
