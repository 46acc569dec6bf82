"""What a router is given: hidden states, gate parameters and their storage dtype."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from moe_routing.reference.arrays import (
    AnyArray,
    check_exact,
    check_shapes,
    convert,
    freeze,
    present,
)
from moe_routing.reference.carriers import carriers
from moe_routing.reference.checks import require_choice
from moe_routing.reference.config import LEAST_PRECISE, LeastPrecise, RouterConfig
from moe_routing.reference.formats import INPUT_FORMATS

BiasOn = Literal["gate", "block", "statics"]
BIAS_ON: tuple[str, ...] = get_args(BiasOn)

OF_GATE = ("logits", "gate_weight", "gate_bias", "gate_delta")
"""The arrays that are stored in float32 where ``RouterInputs.gate_dtype`` says so."""

_FLOATS = (*OF_GATE, "hidden", "per_expert_scale", "hidden_scale")
_FLOAT32 = ("selection_bias",)
_INTEGERS = ("expert_table", "token_ids")

_SHAPES = {
    "hidden": "TH",
    "gate_weight": "EH",
    "gate_bias": "E",
    "selection_bias": "E",
    "gate_delta": "EH",
    "per_expert_scale": "E",
    "hidden_scale": "H",
    "expert_table": "VK",
    "token_ids": "T",
    "logits": "TE",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class RouterInputs:
    """The arrays of one routing call, read-only, with the dtype they are stored in.

    Shapes: ``hidden [T, H]``, ``gate_weight [E, H]``, and where present ``gate_bias [E]``
    (linear bias), ``selection_bias [E]`` (``e_score_correction_bias``, always float32;
    ``selection_bias_on`` says whether a backend finds it on the gate, the block or the
    statics module), ``gate_delta [E, H]`` (a LoRA delta), ``per_expert_scale [E]``,
    ``hidden_scale [H]`` (with ``RouterConfig.input_norm``), ``expert_table [V, K]`` with
    ``token_ids [T]`` (hash routing), and ``logits [T, E]`` where they were given rather
    than computed (see ``from_logits``).

    Floating-point arrays are float32 and hold only values that ``dtype`` (``float32``,
    ``bfloat16`` or ``float16``) represents, so that no cast ever rounds them. With
    ``gate_dtype="float32"`` those of ``OF_GATE``, what makes the logits or is them, are
    float32 whatever ``dtype`` is (in float32 the two are one: it reads ``input`` there).
    Memory strides are preserved: a backend's tensors are made with the same ones. Errors:
    ``ValueError`` naming the array, its shape or value, and the rule.
    """

    hidden: npt.NDArray[np.float32]
    gate_weight: npt.NDArray[np.float32]
    gate_bias: npt.NDArray[np.float32] | None = None
    selection_bias: npt.NDArray[np.float32] | None = None
    selection_bias_on: BiasOn = "gate"
    gate_delta: npt.NDArray[np.float32] | None = None
    per_expert_scale: npt.NDArray[np.float32] | None = None
    hidden_scale: npt.NDArray[np.float32] | None = None
    expert_table: npt.NDArray[np.int64] | None = None
    token_ids: npt.NDArray[np.int64] | None = None
    logits: npt.NDArray[np.float32] | None = None
    dtype: str = "float32"
    gate_dtype: LeastPrecise = "input"

    def __post_init__(self) -> None:
        require_choice("dtype", self.dtype, tuple(INPUT_FORMATS))
        require_choice("gate_dtype", self.gate_dtype, LEAST_PRECISE)
        require_choice("selection_bias_on", self.selection_bias_on, BIAS_ON)
        if self.dtype == "float32":
            object.__setattr__(self, "gate_dtype", "input")
        freeze(self, _SHAPES, integers=_INTEGERS)
        for name, array in present(self, _FLOATS).items():
            check_exact(name, array, self.dtype_of(name), self._wider(name))
        self._check_finite()
        if self.logits is not None and self.gate_delta is not None:
            raise ValueError("Cannot have gate_delta with logits: the delta would change them")
        if (self.expert_table is None) != (self.token_ids is None):
            raise ValueError(
                "Expected expert_table and token_ids together: hash routing looks a "
                "token's experts up by its token id"
            )

    @classmethod
    def from_logits(
        cls,
        logits: npt.ArrayLike,
        *,
        dtype: str = "float32",
        gate_dtype: LeastPrecise = "input",
        **others: Any,
    ) -> RouterInputs:
        """Make inputs whose logits are exactly ``logits [T, E]``, through a gate that carries them.

        Backends that take logits read ``inputs.logits``. For backends that take hidden
        states, ``hidden`` is the logits and ``gate_weight`` the identity; with
        ``gate_dtype="float32"`` beside 16 bits, the other way round: token t is row t of the
        identity, and the gate is the logits. An expert whose
        logit is -inf for every token comes through ``gate_bias`` (``inf * 0`` is NaN), and
        a row that is NaN throughout stays one. Errors: ``ValueError`` for any other
        non-finite logit, for one that its dtype would round, or for
        ``gate_weight``, ``hidden``, ``gate_bias`` or ``gate_delta`` in ``others``.
        """
        clash = sorted({"hidden", "gate_weight", "gate_bias"} & set(others))
        if clash:
            raise ValueError(f"Cannot have {', '.join(clash)} with logits: from_logits makes them")
        table = convert("logits", logits, np.float32)
        check_shapes({"logits": table}, _SHAPES)
        wide = gate_dtype == "float32" and dtype != "float32"
        made = carriers(table, on_gate=wide)
        return cls(**made, logits=table, dtype=dtype, gate_dtype=gate_dtype, **others)

    def dtype_of(self, name: str) -> str:
        """Return the dtype in which an array, by the name of its field, is stored."""
        if name in _INTEGERS:
            return "int64"
        return "float32" if name in _FLOAT32 or self._is_wide(name) else self.dtype

    def _is_wide(self, name: str) -> bool:
        return self.gate_dtype == "float32" and name in OF_GATE

    def _wider(self, name: str) -> str:
        """Return what makes an array of 16 bits hold more, as a phrase, or nothing."""
        return "gate_dtype='float32'" * (name in OF_GATE and self.dtype != "float32")

    @property
    def num_tokens(self) -> int:
        """T, the number of tokens."""
        return len(self.hidden)

    @property
    def hidden_size(self) -> int:
        """H, the width of a hidden state."""
        return int(self.hidden.shape[1])

    @property
    def num_experts(self) -> int:
        """E, the number of rows of the gate."""
        return len(self.gate_weight)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays that are present, by field name."""
        return present(self, _SHAPES)

    def _check_finite(self) -> None:
        for name, array in present(self, ("per_expert_scale", "selection_bias")).items():
            if np.isfinite(array).all():
                continue
            masks = name == "selection_bias"  # -inf there: an expert never to be selected
            good = np.isfinite(array) | (np.isneginf(array) & masks)
            if not good.all():
                e = int(np.argmin(good))
                raise ValueError(
                    f"Cannot have {name}[{e}]={array[e]}: expected finite values"
                    f"{' or -inf, for an expert never to be selected' * masks}"
                )


def check_inputs(config: RouterConfig, inputs: RouterInputs) -> None:
    """Raise ``ValueError`` where ``inputs`` do not fit ``config``, naming both."""
    if inputs.num_experts != config.num_experts:
        raise ValueError(
            f"Expected gate_weight of shape [{config.num_experts}, H] for "
            f"num_experts={config.num_experts} but got {inputs.gate_weight.shape}"
        )
    if inputs.hidden_scale is not None and config.input_norm is None:
        raise ValueError("Cannot have hidden_scale without input_norm: nothing reads it")
    if inputs.logits is not None and config.input_norm is not None:
        raise ValueError("Cannot have input_norm with logits: the norm would change them")
    if inputs.expert_table is not None and inputs.token_ids is not None:
        _check_table(config, inputs, inputs.expert_table)
        _check_range("expert_table", inputs.expert_table, config.num_experts)
        _check_range("token_ids", inputs.token_ids, len(inputs.expert_table))


def _check_table(config: RouterConfig, inputs: RouterInputs, table: AnyArray) -> None:
    if inputs.selection_bias is not None or config.groups is not None:
        raise ValueError(
            "Cannot have expert_table with selection_bias or groups: hash routing selects nothing"
        )
    if config.weights_from == "masked_scores":
        raise ValueError(
            "Cannot have expert_table with weights_from='masked_scores': groups make the mask, "
            "and a table excludes groups; use weights_from='scores'"
        )
    if table.shape[1] != config.top_k:
        raise ValueError(
            f"Expected expert_table of shape [V, {config.top_k}] for top_k={config.top_k} "
            f"but got {table.shape}"
        )


def _check_range(name: str, ids: AnyArray, below: int) -> None:
    if ids.size and (ids.min() < 0 or ids.max() >= below):
        raise ValueError(
            f"Expected {name} in [0, {below}) but got values from {ids.min()} to {ids.max()}"
        )
