"""Recipes: the distributions that hidden states, gates, logits and biases are drawn from.

No single distribution finds every bug. Lattices make every logit exact, so that any
disagreement is a bug and ties are true; identity gates make the logits a table that a
person can read; the others each reach one region where real routers went wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from moe_routing.reference.formats import BFLOAT16, FLOAT16, FLOAT32, Bools, FloatFormat, Floats

Rng = np.random.Generator


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """T, H and E of the numbers to make, and the number of expert groups."""

    tokens: int
    hidden: int
    experts: int
    groups: int = 1


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One distribution: its name, its purpose, and how it makes its numbers.

    ``gate`` makes ``(hidden [T, H], gate_weight [E, H])``; ``logits`` makes ``[T, E]`` for
    an identity gate. Exactly one is set. Values are rounded to the dtype afterwards.
    """

    name: str
    purpose: str
    gate: Callable[[Rng, Sizes, FloatFormat], tuple[Floats, Floats]] | None = None
    logits: Callable[[Rng, Sizes, FloatFormat], Floats] | None = None


def _lattice(rng: Rng, sizes: Sizes, form: FloatFormat) -> tuple[Floats, Floats]:
    """Draw small integers, few enough that |x|.|W| <= 2**precision / 4.

    The quarter leaves room for a linear bias and a delta of the same kind.
    """
    entry = 2 if form.precision < FLOAT32.precision else 8
    most = max(1, int(2.0 ** (form.precision - 2)) // (entry * entry))
    hidden = rng.integers(-entry, entry + 1, (sizes.tokens, sizes.hidden)).astype(np.float64)
    if sizes.hidden > most:
        ranks = rng.random(hidden.shape).argsort(axis=1)
        hidden[ranks >= most] = 0.0
    gate = rng.integers(-entry, entry + 1, (sizes.experts, sizes.hidden)).astype(np.float64)
    return hidden, gate


def _tied_lattice(rng: Rng, sizes: Sizes, form: FloatFormat) -> tuple[Floats, Floats]:
    hidden, gate = _lattice(rng, sizes, form)
    return hidden, _repeated(rng, gate)


def _normal(rng: Rng, sizes: Sizes, form: FloatFormat) -> tuple[Floats, Floats]:
    hidden = rng.standard_normal((sizes.tokens, sizes.hidden))
    gate = rng.standard_normal((sizes.experts, sizes.hidden)) * 3.0 / np.sqrt(sizes.hidden)
    return hidden, gate


def _duplicated(rng: Rng, sizes: Sizes, form: FloatFormat) -> tuple[Floats, Floats]:
    hidden, gate = _normal(rng, sizes, form)
    return hidden, _repeated(rng, gate)


def _repeated(rng: Rng, gate: Floats) -> Floats:
    """Return as many rows, drawn from the first half of them."""
    return gate[rng.integers(0, max(1, len(gate) // 2), len(gate))]


def _bfloat16_steps(rng: Rng, sizes: Sizes, form: FloatFormat) -> tuple[Floats, Floats]:
    """Draw exact logits that differ by a half to an eighth of a step of the 16-bit input dtype.

    A row's magnitude comes through one hidden column, its fine part through the other, so
    that inputs in 16 bits have logits that 16 bits cannot distinguish.
    """
    precision = (FLOAT16 if form == FLOAT16 else BFLOAT16).precision
    level = rng.choice([1.0, 2.0, -1.0, -4.0], sizes.tokens)
    rung = np.abs(level) * 2.0 ** -rng.integers(precision, precision + 3, sizes.tokens)
    gate = np.stack([np.ones(sizes.experts), rng.integers(-3, 4, sizes.experts)], axis=1)
    return np.stack([level, rung], axis=1), gate


def _crowded(rng: Rng, sizes: Sizes, form: FloatFormat) -> tuple[Floats, Floats]:
    """Raise the first, the last or any one expert above all others, the same for every token."""
    favourite = rng.choice([0, sizes.experts - 1, int(rng.integers(sizes.experts))])
    hidden = np.stack([np.ones(sizes.tokens), rng.integers(-2, 3, sizes.tokens)], axis=1)
    gate = np.stack([np.zeros(sizes.experts), rng.integers(-4, 5, sizes.experts) / 4.0], axis=1)
    gate[favourite] = 8.0, 0.0
    return hidden, gate


def _wide(rng: Rng, sizes: Sizes, form: FloatFormat) -> tuple[Floats, Floats]:
    hidden, gate = _normal(rng, sizes, form)
    reach = 3.0 if form.max_exponent < FLOAT32.max_exponent else 12.0
    return hidden * np.exp(rng.uniform(-reach, reach, (sizes.tokens, 1))), gate


def _table(rng: Rng, sizes: Sizes, form: FloatFormat) -> Floats:
    return rng.integers(-16, 17, (sizes.tokens, sizes.experts)) / 4.0


def _one_sided(rng: Rng, sizes: Sizes, form: FloatFormat) -> Floats:
    sign = rng.choice([-1.0, 1.0, 0.0, -0.0], (sizes.tokens, 1))
    return sign * rng.integers(1, 9, (sizes.tokens, sizes.experts)) / 2.0


def _one_hot(rng: Rng, sizes: Sizes, form: FloatFormat) -> Floats:
    """Draw one logit a row above all others, which tie, at any sign."""
    level = rng.choice([0.0, -2.0, 2.0], (sizes.tokens, 1))
    hot: Bools = np.arange(sizes.experts) == rng.integers(0, sizes.experts, (sizes.tokens, 1))
    logits: Floats = level + rng.choice([1.0, 6.0], (sizes.tokens, 1)) * hot
    return logits


def _near_ties(rng: Rng, sizes: Sizes, form: FloatFormat) -> Floats:
    """Draw rungs of 2**-k below one magnitude a row, k from 3 to the last bit."""
    level = rng.choice([-8.0, -1.0, 1.0, 4.0], (sizes.tokens, 1))
    rung = 2.0 ** -rng.integers(3, form.precision, (sizes.tokens, 1)).astype(np.float64)
    steps = rng.integers(-2, 3, (sizes.tokens, sizes.experts))
    return level * (1.0 + steps * rung)


def _near_group_ties(rng: Rng, sizes: Sizes, form: FloatFormat) -> Floats:
    """Draw groups that hold the same logits in another order, but for one rung in one of them."""
    size = sizes.experts // sizes.groups
    base = np.repeat(rng.integers(-8, 9, (sizes.tokens, 1, size)) / 4.0, sizes.groups, axis=1)
    logits = rng.permuted(base, axis=2).reshape(sizes.tokens, sizes.experts)
    rung = 2.0 ** -rng.integers(3, form.precision, (sizes.tokens, 1)).astype(np.float64)
    odd: Bools = np.arange(sizes.experts) == rng.integers(0, sizes.experts, (sizes.tokens, 1))
    return logits * (1.0 + rung * odd)


def _saturated(rng: Rng, sizes: Sizes, form: FloatFormat) -> Floats:
    least = rng.choice([15.0, 18.0], (sizes.tokens, 1))
    return rng.uniform(least, 40.0, (sizes.tokens, sizes.experts))


def _underflowing(rng: Rng, sizes: Sizes, form: FloatFormat) -> Floats:
    """Draw logits far below zero; in half of the rows, with a few near zero."""
    most = rng.choice([-60.0, -101.0], (sizes.tokens, 1))
    logits = rng.uniform(most - 70.0, most, (sizes.tokens, sizes.experts))
    near = (rng.random(logits.shape) < 0.2) & (rng.random((sizes.tokens, 1)) < 0.5)
    return np.where(near, rng.uniform(-4.0, 4.0, logits.shape), logits)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(name="table", purpose="quarters as logits: true ties, readable", logits=_table),
        Recipe(name="lattice", purpose="integers: every logit exact, true ties", gate=_lattice),
        Recipe(name="tied-lattice", purpose="equal gate rows: exact ties", gate=_tied_lattice),
        Recipe(name="normal", purpose="what everybody tests", gate=_normal),
        Recipe(name="duplicated", purpose="equal gate rows: ties among reals", gate=_duplicated),
        Recipe(name="wide", purpose="rows of very different magnitude", gate=_wide),
        Recipe(name="one-sided", purpose="rows all negative, positive or zero", logits=_one_sided),
        Recipe(name="one-hot", purpose="one expert high, the others tied", logits=_one_hot),
        Recipe(name="crowded", purpose="every token to the same expert", gate=_crowded),
        Recipe(name="bfloat16-steps", purpose="exact gaps below 16 bits", gate=_bfloat16_steps),
        Recipe(name="near-ties", purpose="gaps from 1/8 to the last bit", logits=_near_ties),
        Recipe(name="near-group-ties", purpose="groups apart by one rung", logits=_near_group_ties),
        Recipe(name="saturated", purpose="sigmoid rounds to 1", logits=_saturated),
        Recipe(name="underflowing", purpose="scores below the normal range", logits=_underflowing),
    )
}
"""The recipes of hidden states and logits, by name; shrinking prefers the first."""


def _finer_than_bfloat16(rng: Rng, experts: int) -> Floats:
    return 1.0 + rng.integers(-3, 4, experts) / 2.0**10


def _deep(rng: Rng, experts: int) -> Floats:
    """Draw biases far below zero, past numbers that kernels use as minus infinity."""
    depth: float = rng.choice([50.0, 3e4, 1e10])
    return -depth * (1.0 + rng.integers(0, 9, experts) / 8.0)


def _one_finite(rng: Rng, experts: int) -> Floats:
    return np.where(np.arange(experts) == rng.integers(experts), 0.25, -np.inf)


def _masked(rng: Rng, experts: int) -> Floats:
    return np.where(rng.random(experts) < 0.5, -np.inf, rng.integers(-4, 5, experts) / 4.0)


BIASES: dict[str, Callable[[Rng, int], Floats]] = {
    "zero": lambda rng, experts: np.zeros(experts),
    "steering": lambda rng, experts: rng.integers(-4, 5, experts) / 4.0,
    "normal": lambda rng, experts: rng.standard_normal(experts) * 0.3,
    "offset": lambda rng, experts: (
        rng.choice([7.0, 12.0, 34.5]) + rng.standard_normal(experts) * 2.0**-10
    ),
    "negative": lambda rng, experts: -rng.choice([0.5, 1.5, 3.0]) - rng.random(experts),
    "fine": _finer_than_bfloat16,
    "deep": _deep,
    "one-finite": _one_finite,
    "masked": _masked,
}
"""The recipes of the selection bias, by name."""


def _quarters(rng: Rng, experts: int, top_k: int) -> Floats:
    return rng.integers(-8, 9, experts) / 4.0


def _lost(rng: Rng, experts: int, finite: int) -> Floats:
    return np.where(rng.permutation(experts) < finite, 0.0, -np.inf)


GATE_BIASES: dict[str, Callable[[Rng, int, int], Floats]] = {
    "quarters": _quarters,
    "some-lost": lambda rng, experts, top_k: _lost(rng, experts, (experts + top_k) // 2),
    "too-many-lost": lambda rng, experts, top_k: _lost(rng, experts, top_k - 1),
    "all-lost": lambda rng, experts, top_k: _lost(rng, experts, 0),
}
"""The recipes of the linear bias, by name, made for E and K; a lost expert's logits are -inf."""
