"""Calls of experts: small arrays of many kinds, loads of many shapes, made from a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.experts import ExpertsCase
from moe_routing.conformance.generators.axes import Choose
from moe_routing.conformance.generators.permutation import LOADS, OFTEN, loaded_ids, without
from moe_routing.implementations import Capabilities, Computes
from moe_routing.implementations.permitted import listed
from moe_routing.reference import ExpertsConfig, ExpertsInputs
from moe_routing.reference.activations import CLAMPED
from moe_routing.reference.formats import INPUT_FORMATS, FloatFormat, Ids
from moe_routing.reference.routes import ABSENT

Array = npt.NDArray[np.float32]

TOKENS = (0, 1, 2, 3, 5, 8, 17, 31, 33, 64, 65)
EXPERTS = (1, 2, 3, 4, 5, 8, 16)
SLOTS = (1, 2, 3, 4, 5, 6, 8, 9)
WIDTHS = (1, 2, 3, 4, 8, 12, 16, 17, 32, 33)
VALUES = ("eighths", "exact", "normal", "wide")
FINE = ("normal", "wide")
LIMITS = (7.0, 1.0, 0.5)
ALPHAS = (1.702, 0.5, 1.0, 2.0)

_SIGNS = ("positive", "positive", "signed")


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a clause wants of its calls: of each axis some values, where those are claimed.

    ``weights`` are ``positive``, ``signed``, ``one-hot`` or ``zeros``; ``poison`` is what the
    experts that nobody chose hold, ``nan`` or ``inf``; with ``idle``, those whose routes all
    weigh 0 hold infinities.
    """

    offers: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    weights: str = "positive"
    poison: str = ""


def choose_experts_case(
    choose: Choose, capabilities: Capabilities, wishes: Wishes | None = None
) -> ExpertsCase:
    """Return a case that ``capabilities`` claim, made by choices."""
    wishes, computes = wishes or Wishes(), capabilities.computes

    def pick(name: str, claimed: Sequence[Any]) -> Any:
        wanted = [each for each in wishes.offers.get(name, ()) if each in claimed]
        return choose(name, wanted or claimed)

    values, most = pick("values", VALUES), computes.max_experts
    config = ExpertsConfig(
        **choose_options(pick, computes, values),
        num_experts=pick("experts", _within(wishes.offers.get("experts", EXPERTS), most)),
    )
    repeats = pick("repeats", computes.repeats)
    fewest = config.num_experts if not repeats else None
    top_k = pick("top_k", _within(SLOTS, computes.max_top_k, fewest))
    tokens = pick("tokens", _within(TOKENS, computes.max_tokens))
    load = pick("load", LOADS)
    absence = pick("absence", OFTEN if True in computes.absent else ("none",))
    biased = pick("biases", computes.biases)
    sizes = {
        "H": pick("hidden", _multiples(computes.hidden_multiple_of)),
        "F": pick("width", _multiples(computes.width_multiple_of)),
    }
    dtype = pick("dtype", capabilities.dtypes)
    weights = choose("weights", _SIGNS) if wishes.weights == "positive" else wishes.weights
    rng = np.random.default_rng(choose("seed", range(2**16)))
    ids = loaded_ids(rng, load, (tokens, top_k), config.num_experts, repeats=repeats)
    ids = without(rng, ids, absence)
    draft = Draft(rng, config, INPUT_FORMATS[dtype], values, sizes)
    return draft.case(ids, biased=biased, weights=weights, poison=wishes.poison)


def choose_options(choose: Choose, computes: Computes, values: str) -> dict[str, Any]:
    """Choose what the experts compute among what ``computes`` claims."""
    plain = values == "exact" and "relu" in computes.activations
    activation = "relu" if plain else choose("activation", computes.activations)
    clamped = activation == CLAMPED
    if clamped and True not in computes.gated:
        activation = next(each for each in computes.activations if each != CLAMPED)
    return {
        "activation": activation,
        "gated": True if activation == CLAMPED else choose("gated", computes.gated),
        "weight_on": choose("weight_on", computes.weight_on),
        "limit": choose("limit", listed(computes.limits) or LIMITS) if clamped else LIMITS[0],
        "alpha": choose("alpha", listed(computes.alphas) or ALPHAS) if clamped else ALPHAS[0],
    }


@dataclass(frozen=True, eq=False)
class Draft:
    """A call whose arrays are still to be drawn; ``sizes`` are H and F."""

    rng: np.random.Generator
    config: ExpertsConfig
    form: FloatFormat
    values: str
    sizes: Mapping[str, int]

    def case(
        self, ids: Ids, *, biased: bool = False, weights: str = "positive", poison: str = ""
    ) -> ExpertsCase:
        """Draw the arrays of a call with these experts."""
        experts, width, hidden = self.config.num_experts, self.sizes["F"], self.sizes["H"]
        made: dict[str, Any] = {
            "hidden": self.drawn("hidden", len(ids), hidden),
            "up_weight": self.drawn("up", experts, width, hidden),
            "down_weight": self.drawn("down", experts, hidden, width),
        }
        if self.config.gated:
            made["gate_weight"] = self.drawn("gate", experts, width, hidden)
        if biased:
            made["up_bias"] = self.drawn("bias", experts, width)
            made["down_bias"] = self.drawn("bias", experts, hidden)
            if self.config.gated:
                made["gate_bias"] = self.drawn("bias", experts, width)
        weighed = weights_of(self.rng, ids, weights, self.form if self.values in FINE else None)
        if poison == "idle":  # the experts whose routes all weigh 0
            _poison(made, np.setdiff1d(np.arange(experts), ids[weighed != 0.0]), "inf")
        elif poison:
            _poison(made, np.setdiff1d(np.arange(experts), ids), poison)
        inputs = ExpertsInputs(
            expert_ids=ids,
            weights=weighed,
            dtype=self.form.name,
            **made,
        )
        return ExpertsCase(config=self.config, inputs=inputs, recipe=self.values)

    def drawn(self, part: str, *shape: int) -> Array:
        """Draw one array, of values that the format holds."""
        rng = self.rng
        if self.values == "exact":
            return self._exact(part, shape)
        if self.values == "eighths":
            return (rng.integers(-12, 13, shape) / 8.0).astype(np.float32)
        values = rng.standard_normal(shape)
        if self.values == "wide":
            values = values * 2.0 ** rng.integers(-6, 4, shape)
        scale = 1.0 if part in ("hidden", "bias") else float(shape[-1]) ** -0.5
        return self.form.round(values * scale).astype(np.float32)

    def _exact(self, part: str, shape: tuple[int, ...]) -> Array:
        """Draw few and small numbers, so that no order of sums rounds; most rows have two or three.

        The first and the last column of hidden states are 1. Gates read the first alone, so that
        products with them stay short, and the long numbers of float32, which tf32 cuts, come
        through ``up``. Where H allows, its rows begin with what the format holds no 1 next to, and
        end with taking it away.
        """
        rng, last = self.rng, np.arange(shape[-1])
        ternary = rng.integers(-1, 2, shape).astype(np.float64)
        if part == "bias":
            return ternary.astype(np.float32)
        if part == "hidden":
            fine = 2.0**-13 if self.form.name == "float32" else 0.0
            values = ternary * (1.0 + fine * rng.integers(0, 2, shape))
            ones = (last == 0) | (last == shape[-1] - 1) if shape[-1] > 3 else last == 0
            return np.where(ones, 1.0, values).astype(np.float32)
        if part == "gate":
            return np.where(last == 0, rng.integers(1, 3, shape), 0).astype(np.float32)
        values = ternary * (rng.random(shape) < 2.5 / shape[-1])
        if part == "up" and shape[-1] > 3:
            large = 2.0 ** min(self.form.precision, 10 if self.form.name == "float32" else 11)
            often = rng.random(shape[:-1]) < 0.5
            values[..., 0] = np.where(often, large, values[..., 0])
            values[..., -1] = np.where(often, -large, values[..., -1])
        return values.astype(np.float32)


def weights_of(
    rng: np.random.Generator, ids: Ids, kind: str, form: FloatFormat | None = None
) -> Array:
    """Draw routing weights: powers of two from 1/8 to 1, signed, one of 1 a token, or many zeros.

    With a ``form`` they have all the bits that it holds.
    """
    weights = 2.0 ** -rng.integers(0, 4, ids.shape)
    if form is not None:
        weights = form.round(weights * rng.uniform(0.5, 1.0, ids.shape))
    if kind == "signed":
        weights = weights * rng.choice([-1.0, 1.0], ids.shape)
    if kind == "zeros":
        weights = weights * (rng.random(ids.shape) < 0.5)
    if kind == "one-hot" and ids.size:
        chosen = rng.integers(0, ids.shape[1], len(ids))
        weights = 1.0 * (np.arange(ids.shape[1]) == chosen[:, None])
    return np.where(ids == ABSENT, 0.0, weights).astype(np.float32)


def _poison(made: dict[str, Any], unchosen: Ids, poison: str) -> None:
    """Fill the experts that nobody chose with NaN or with infinities."""
    value = {"nan": np.nan, "inf": np.inf}[poison]
    for name in ("gate_weight", "up_weight", "down_weight", "up_bias", "down_bias", "gate_bias"):
        if name in made:
            made[name][unchosen] = value


def _within(sizes: Sequence[int], *limits: int | None) -> list[int]:
    most = min((n for n in limits if n is not None), default=None)
    return [n for n in sizes if most is None or n <= most] or [most or 0]


def _multiples(step: int) -> list[int]:
    """Return the widths that are drawn among the multiples of ``step``."""
    return [n for n in WIDTHS if n % step == 0] or [step, 2 * step]


def drawn_widths(wanted: int, step: int) -> list[int]:
    """Return the least multiple of ``step`` that is no less than is wanted."""
    return [-(-wanted // step) * step]
