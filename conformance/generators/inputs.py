"""Inputs from a recipe: seeded NumPy arrays, with experts chosen from a pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.memory import strided
from moe_routing.conformance.generators.axes import Parts
from moe_routing.conformance.generators.recipes import (
    BIASES,
    GATE_BIASES,
    RECIPES,
    Recipe,
    Sizes,
)
from moe_routing.reference import RouterConfig, RouterInputs
from moe_routing.reference.formats import FLOAT32, INPUT_FORMATS, FloatFormat

POOL = 8
"""The number of experts in the pool that small cases choose from."""

_EXPERT_SCALES = (1.0, 0.5, 2.0, 0.0, -1.5, 0.7)  # the last one is rounded by every dtype
_HIDDEN_SCALES = (1.0, 0.5, 0.75, 1.25, 1.5, 0.7)
_APART = 64  # rows of a table that a gate carries, one a column
_WITH_SCALE = 0.75  # the share of normalised hidden states that a scale follows


@dataclass(frozen=True, kw_only=True)
class Draft:
    """Everything that determines a case's arrays, besides its configuration.

    ``columns`` index a pool of experts; None takes all in order. Repeated indices give tied
    experts. ``layout`` is ``rows``, or the name of the matrix that is transposed, with
    everything else spaced out.
    """

    recipe: str
    seed: int
    dtype: str
    tokens: int
    hidden: int
    parts: Parts
    bias: str = "zero"
    gate_bias: str = "quarters"
    columns: Sequence[int] | None = None
    layout: str = "rows"
    given_logits: bool = False

    @property
    def is_wide(self) -> bool:
        """Whether the gate has more bits than the hidden states."""
        return self.parts.gate_dtype == "float32" and self.dtype != "float32"

    @property
    def form(self) -> FloatFormat:
        """The format of the hidden states and of what is not the gate's."""
        return INPUT_FORMATS[self.dtype]

    @property
    def gate_form(self) -> FloatFormat:
        """The format of the gate, of its bias and delta, and of given logits."""
        return FLOAT32 if self.is_wide else self.form


def make_inputs(config: RouterConfig, draft: Draft) -> RouterInputs:
    """Return the inputs that ``draft`` determines for ``config``."""
    rng = np.random.default_rng(draft.seed)
    arrays = _gate(rng, RECIPES[draft.recipe], config, draft)
    arrays |= _optional_arrays(rng, config, draft, arrays)
    types: dict[str, Any] = {"dtype": draft.dtype, "gate_dtype": draft.parts.gate_dtype}
    if draft.given_logits:
        logits = _exact(arrays.pop("hidden") @ arrays.pop("gate_weight").T, draft.gate_form)
        inputs = _given(logits, draft, types, arrays)
    else:
        inputs = RouterInputs(**types, **arrays)
    return inputs if draft.layout == "rows" else with_strides(inputs, transposed=draft.layout)


def with_strides(inputs: RouterInputs, *, transposed: str = "hidden") -> RouterInputs:
    """Return the same inputs in other memory: one matrix transposed, the rest spaced out.

    Logits that are inputs are laid out as the hidden states, which they stand for.
    """
    names = ("hidden", "logits") if transposed == "hidden" else (transposed,)
    arrays: dict[str, Any] = {
        name: strided(array, _steps(array.shape, name in names)) if array.size else array
        for name, array in inputs.arrays().items()
    }
    return replace(inputs, **arrays)


def in_rows(inputs: RouterInputs) -> RouterInputs:
    """Return the same inputs with every array in rows, the last index running fastest."""
    arrays = inputs.arrays()
    if all(array.flags.c_contiguous for array in arrays.values()):
        return inputs
    changes: dict[str, Any] = {name: np.ascontiguousarray(each) for name, each in arrays.items()}
    return replace(inputs, **changes)


def _steps(shape: tuple[int, ...], transposed: bool) -> list[int]:
    if len(shape) == 1:
        return [2]
    return [1, shape[0]] if transposed else [2 * shape[1] + 1, 2]


def _given(
    logits: npt.NDArray[np.float32], draft: Draft, types: dict[str, Any], arrays: dict[str, Any]
) -> RouterInputs:
    """Return inputs with given logits: where a gate carries them, few rows, which come again."""
    if draft.is_wide:
        logits = logits[np.arange(len(logits)) % _APART]
    return RouterInputs.from_logits(logits, **types, **arrays)


def _gate(
    rng: np.random.Generator, recipe: Recipe, config: RouterConfig, draft: Draft
) -> dict[str, Any]:
    form, gate_form = draft.form, draft.gate_form
    columns = list(range(config.num_experts)) if draft.columns is None else list(draft.columns)
    sizes = Sizes(
        tokens=draft.tokens,
        hidden=draft.hidden,
        experts=config.num_experts if draft.columns is None else POOL,
        groups=config.groups.count if config.groups and draft.columns is None else 1,
    )
    if recipe.logits is not None and draft.is_wide:
        few = replace(sizes, tokens=min(draft.tokens, _APART))
        gate = recipe.logits(rng, few, gate_form)[:, columns].T
        hidden = np.eye(max(1, few.tokens))[np.arange(draft.tokens) % _APART]
        gate = gate if draft.tokens else np.zeros((config.num_experts, 1))
    elif recipe.logits is not None:
        hidden = recipe.logits(rng, sizes, form)[:, columns]
        gate = np.eye(config.num_experts)
    else:
        assert recipe.gate is not None, "a recipe makes one of the two"
        hidden, gate = recipe.gate(rng, sizes, form)
        gate = gate[columns]
    return {"hidden": _exact(hidden, form), "gate_weight": _exact(gate, gate_form)}


def _optional_arrays(
    rng: np.random.Generator,
    config: RouterConfig,
    draft: Draft,
    gate: dict[str, Any],
) -> dict[str, Any]:
    form, gate_form = draft.form, draft.gate_form
    parts, experts = draft.parts, config.num_experts
    width = gate["gate_weight"].shape[1]
    arrays: dict[str, Any] = {}
    if parts.selection_bias != "none":
        columns = range(experts) if draft.columns is None else draft.columns
        pool = BIASES[draft.bias](rng, experts if draft.columns is None else POOL)
        arrays["selection_bias"] = _exact(pool[list(columns)], FLOAT32)
        arrays["selection_bias_on"] = parts.selection_bias
    if parts.gate_bias:
        arrays["gate_bias"] = _exact(
            GATE_BIASES[draft.gate_bias](rng, experts, config.top_k), gate_form
        )
    if parts.gate_delta:
        delta = rng.integers(-1, 2, (experts, width)) * (rng.random((experts, width)) < 0.3)
        arrays["gate_delta"] = _exact(delta.astype(np.float64), gate_form)
    if parts.per_expert_scale:
        arrays["per_expert_scale"] = _exact(rng.choice(_EXPERT_SCALES, experts), form)
    if config.input_norm is not None and rng.random() < _WITH_SCALE:
        arrays["hidden_scale"] = _exact(rng.choice(_HIDDEN_SCALES, width), form)
    if parts.expert_table:
        table = rng.integers(0, experts, (POOL, config.top_k))
        arrays["expert_table"] = table
        arrays["token_ids"] = rng.integers(0, POOL, draft.tokens)
    return arrays


def _exact(values: npt.ArrayLike, form: FloatFormat) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(form.round(values), dtype=np.float32)
