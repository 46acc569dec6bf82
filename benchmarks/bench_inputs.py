"""What the benchmarks route: sizes, routers of shipped models, and inputs of four kinds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt

from moe_routing.reference import RouterConfig, RouterInputs, preset
from moe_routing.reference.formats import INPUT_FORMATS

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Size:
    """The sizes of a call: tokens, experts, experts a token, hidden states."""

    tokens: int
    experts: int
    top_k: int
    hidden: int

    def __str__(self) -> str:
        return f"T={self.tokens} E={self.experts} K={self.top_k} H={self.hidden}"


SMALL = Size(tokens=64, experts=8, top_k=2, hidden=64)
MIDDLE = Size(tokens=1024, experts=128, top_k=8, hidden=2048)
BULK = Size(tokens=4096, experts=64, top_k=6, hidden=64)
LARGE = Size(tokens=8192, experts=256, top_k=8, hidden=2048)
MANY = Size(tokens=65536, experts=256, top_k=8, hidden=64)

ONE = Size(tokens=1, experts=256, top_k=8, hidden=64)
FEW = Size(tokens=64, experts=256, top_k=8, hidden=64)
PREFILL = Size(tokens=8192, experts=256, top_k=8, hidden=64)

SPREADS = ("uniform", "skewed", "all-to-one", "tie-heavy")
"""How the tokens spread over the experts."""

CACHES = 2**28
"""The bytes of hidden states to go through before any comes again: beyond every cache."""

_MOST_SETS = 64
_FAVOURED = 16.0
_RUNGS = 3


def router(model: str, size: Size) -> RouterConfig:
    """Return the router of a shipped model, at other sizes."""
    return replace(preset(model).config, num_experts=size.experts, top_k=size.top_k)


def inputs_of(
    model: str, size: Size, spread: str, dtype: str, takes: str
) -> Iterator[RouterInputs]:
    """Yield inputs that differ in their tokens, enough of them to leave every cache.

    ``takes`` as in ``Capabilities``: hidden states, or logits.
    """
    hidden, gate = _hidden_and_gate(size, spread, dtype)
    place, arrays = preset(model).selection_bias, {}
    if place is not None:
        arrays = {"selection_bias": np.linspace(-0.1, 0.1, size.experts, dtype=np.float32)}
        arrays["selection_bias_on"] = place
    sets = min(max(1, CACHES // hidden.nbytes), _MOST_SETS)
    for number in range(sets):
        rows = np.roll(hidden, number * size.tokens // sets, axis=0)
        if takes == "logits":
            yield RouterInputs.from_logits(rounded(rows @ gate.T, dtype), dtype=dtype, **arrays)
        else:
            yield RouterInputs(hidden=rows, gate_weight=gate, dtype=dtype, **arrays)


@cache
def _hidden_and_gate(size: Size, spread: str, dtype: str) -> tuple[Array, Array]:
    """Return hidden states, the first of them 1, and a gate whose first column spreads."""
    rng = np.random.default_rng(0)
    if spread == "tie-heavy":  # small integers, and every row of the gate four times
        hidden = rng.integers(-1, 2, (size.tokens, size.hidden)).astype(np.float32)
        distinct = rng.integers(-1, 2, (max(1, size.experts // 4), size.hidden))
        gate = np.tile(distinct.astype(np.float32), (4, 1))[: size.experts]
        return hidden, np.ascontiguousarray(gate)
    hidden = rng.standard_normal((size.tokens, size.hidden), np.float32)
    gate = rng.standard_normal((size.experts, size.hidden), np.float32) / size.hidden**0.5
    hidden[:, 0] = 1.0
    gate[:, 0] = _favours(spread, size.experts)
    return rounded(hidden, dtype), rounded(gate, dtype)


def _favours(spread: str, experts: int) -> Array:
    """Return what each expert's logits have more than those of the others."""
    favours = np.zeros(experts, np.float32)
    if spread == "skewed":  # a power law: the n-th expert is chosen as 1 / n to some power
        favours -= _RUNGS * np.log1p(np.arange(experts, dtype=np.float32)) / 2
    if spread == "all-to-one":
        favours[-1] = _FAVOURED
    return favours


def rounded(values: npt.ArrayLike, dtype: str) -> Array:
    """Return float32 values that ``dtype`` holds exactly."""
    return INPUT_FORMATS[dtype].round(values).astype(np.float32)


def least_traffic(config: RouterConfig, inputs: RouterInputs, takes: str) -> int:
    """Return the fewest bytes that a call must move.

    Reading the hidden states and the gate (or the logits, by who takes those) once, in the
    dtype of the inputs, and the selection bias in float32; writing K weights and K ids a
    token, in 4 bytes each.
    """
    item = 4 if inputs.dtype == "float32" else 2
    tokens, experts = inputs.num_tokens, config.num_experts
    read = tokens * experts if takes == "logits" else inputs.hidden.size + inputs.gate_weight.size
    bias = 0 if inputs.selection_bias is None else 4 * experts
    return item * read + bias + 8 * tokens * config.top_k
