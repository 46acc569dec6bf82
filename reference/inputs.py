"""What a router is given: hidden states, gate parameters and their storage dtype."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from moe_routing.reference.config import RouterConfig, require_choice
from moe_routing.reference.formats import INPUT_FORMATS

BiasOn = Literal["gate", "block", "statics"]
BIAS_ON: tuple[str, ...] = get_args(BiasOn)

IN_DTYPE = ("hidden", "gate_weight", "gate_bias", "gate_delta", "per_expert_scale", "hidden_scale")
"""The arrays that are stored in ``RouterInputs.dtype``."""

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
_INTEGER = ("expert_table", "token_ids")


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
    ``bfloat16`` or ``float16``) represents, so that no cast ever rounds them. Memory
    strides are kept: a backend's tensors are made with the same ones. Errors:
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

    def __post_init__(self) -> None:
        require_choice("dtype", self.dtype, tuple(INPUT_FORMATS))
        require_choice("selection_bias_on", self.selection_bias_on, BIAS_ON)
        for name in _SHAPES:
            self._freeze(name)
        self._check_shapes()
        for name in IN_DTYPE:
            self._check_exact(name)
        self._check_finite()
        if self.logits is not None and self.gate_delta is not None:
            raise ValueError("Cannot have gate_delta with logits: they would not be the logits")
        if (self.expert_table is None) != (self.token_ids is None):
            raise ValueError(
                "Expected expert_table and token_ids together: hash routing looks a "
                "token's experts up by its token id"
            )

    @classmethod
    def from_logits(
        cls, logits: npt.ArrayLike, *, dtype: str = "float32", **others: Any
    ) -> RouterInputs:
        """Make inputs whose logits are exactly ``logits [T, E]``, through an identity gate.

        Backends that take logits read ``inputs.logits``. For backends that take hidden
        states, ``hidden`` is the logits and ``gate_weight`` the identity; an expert whose
        logit is -inf for every token comes through ``gate_bias`` (``inf * 0`` is NaN), and
        a row that is NaN throughout stays one. Errors: ``ValueError`` for any other
        non-finite logit, or for ``gate_weight``, ``hidden`` or ``gate_bias`` in ``others``.
        """
        logits = np.asarray(logits, dtype=np.float32)
        if logits.ndim != 2:
            raise ValueError(f"Expected logits of shape [T, E] but got shape {logits.shape}")
        clash = sorted({"hidden", "gate_weight", "gate_bias"} & set(others))
        if clash:
            raise ValueError(f"Cannot have {', '.join(clash)} with logits: from_logits makes them")
        lost = np.isneginf(logits).all(axis=0) & (len(logits) > 0)
        hidden = np.where(lost, np.float32(0.0), logits)
        reachable = np.isfinite(hidden) | np.isnan(hidden).all(axis=1, keepdims=True)
        if not reachable.all():
            t, e = np.argwhere(~reachable)[0]
            raise ValueError(
                f"Cannot have logits[{t}, {e}]={logits[t, e]}: an identity gate carries finite "
                "logits, experts that are -inf for every token, and rows that are all NaN"
            )
        gate_bias = np.where(lost, -np.inf, 0.0).astype(np.float32) if lost.any() else None
        return cls(
            hidden=hidden,
            gate_weight=np.eye(logits.shape[1], dtype=np.float32),
            gate_bias=gate_bias,
            logits=logits,
            dtype=dtype,
            **others,
        )

    @property
    def num_tokens(self) -> int:
        """T, the number of tokens."""
        return self.hidden.shape[0]

    @property
    def hidden_size(self) -> int:
        """H, the width of a hidden state."""
        return self.hidden.shape[1]

    @property
    def num_experts(self) -> int:
        """E, the number of rows of the gate."""
        return self.gate_weight.shape[0]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays that are present, by field name."""
        values = {name: getattr(self, name) for name in _SHAPES}
        return {name: value for name, value in values.items() if value is not None}

    def _freeze(self, name: str) -> None:
        value = getattr(self, name)
        if value is None:
            return
        kind = np.int64 if name in _INTEGER else np.float32
        array = np.asarray(value)
        if array.dtype != kind:
            array = convert(name, array, kind)
        array = array.view()
        array.flags.writeable = False
        object.__setattr__(self, name, array)

    def _check_shapes(self) -> None:
        sizes: dict[str, int] = {}
        for name, array in self.arrays().items():
            letters = _SHAPES[name]
            if array.ndim != len(letters):
                raise ValueError(
                    f"Expected {name} of shape [{', '.join(letters)}] but got {array.shape}"
                )
            for letter, size in zip(letters, array.shape, strict=True):
                if sizes.setdefault(letter, size) != size:
                    raise ValueError(
                        f"Expected {name} of shape [{', '.join(letters)}] with "
                        f"{letter}={sizes[letter]} but got {array.shape}"
                    )
        for letter in ("H", "E", "V", "K"):
            if sizes.get(letter) == 0:
                raise ValueError(f"Cannot have {letter}=0: only T may be empty")

    def _check_finite(self) -> None:
        for name, low in (("per_expert_scale", np.isneginf), ("selection_bias", np.isnan)):
            array = getattr(self, name)
            if array is None:
                continue
            bad = np.isnan(array) | np.isposinf(array) | low(array)
            if bad.any():
                e = int(np.argmax(bad))
                raise ValueError(
                    f"Cannot have {name}[{e}]={array[e]}: expected finite values"
                    + (" or -inf, for an expert never to be selected" if low is np.isnan else "")
                )

    def _check_exact(self, name: str) -> None:
        array = getattr(self, name)
        if array is None or self.dtype == "float32":
            return
        held = INPUT_FORMATS[self.dtype].represents(array)
        if not held.all():
            where = tuple(int(i) for i in np.argwhere(~held)[0])
            raise ValueError(
                f"Cannot have {name}{list(where)}={float(array[where])!r} in dtype={self.dtype!r}: "
                f"values must be exact there; round them with FORMATS[{self.dtype!r}].round(...)"
            )


def check_inputs(config: RouterConfig, inputs: RouterInputs) -> None:
    """Raise ``ValueError`` where ``inputs`` do not fit ``config``, naming both."""
    if inputs.num_experts != config.num_experts:
        raise ValueError(
            f"Expected gate_weight of shape [{config.num_experts}, H] for "
            f"num_experts={config.num_experts} but got {inputs.gate_weight.shape}"
        )
    if inputs.hidden_scale is not None and config.input_norm is None:
        raise ValueError("Cannot have hidden_scale without RouterConfig.input_norm: nothing reads it")
    if inputs.logits is not None and config.input_norm is not None:
        raise ValueError("Cannot have input_norm with logits: they would not be the logits")
    if inputs.expert_table is not None:
        _check_table(config, inputs)


def _check_table(config: RouterConfig, inputs: RouterInputs) -> None:
    table, ids = inputs.expert_table, inputs.token_ids
    if inputs.selection_bias is not None or config.groups is not None:
        raise ValueError(
            "Cannot have expert_table with selection_bias or groups: hash routing selects nothing"
        )
    if config.weights_from == "masked_scores":
        raise ValueError("Cannot have expert_table with weights_from='masked_scores'")
    if table.shape[1] != config.top_k:
        raise ValueError(
            f"Expected expert_table of shape [V, {config.top_k}] for top_k={config.top_k} "
            f"but got {table.shape}"
        )
    for name, array, below in (
        ("expert_table", table, config.num_experts),
        ("token_ids", ids, len(table)),
    ):
        if array.size and not (0 <= array.min() and array.max() < below):
            raise ValueError(
                f"Expected {name} in [0, {below}) but got values from {array.min()} "
                f"to {array.max()}"
            )


def convert(name: str, array: npt.NDArray[Any], kind: type) -> npt.NDArray[Any]:
    """Return ``array`` as ``kind``, exactly. Errors: ``ValueError`` naming the first loss."""
    if array.dtype.kind not in ("iu" if kind is np.int64 else "fiu"):
        raise ValueError(f"Expected {name} of dtype {kind.__name__} but got {array.dtype}")
    with np.errstate(over="ignore"):
        converted = array.astype(kind)
    same = (converted == array) | (array != array)
    if not same.all():
        where = tuple(int(i) for i in np.argwhere(~same)[0])
        raise ValueError(
            f"Cannot have {name}{list(where)}={array[where]!r}: not exact in {kind.__name__}; "
            f"round it first with .astype(numpy.{kind.__name__})"
        )
    return converted
