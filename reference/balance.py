"""Balance: counts of experts, auxiliary losses, and the update of the bias that balances them.

Source: ``docs/spec/balance.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from moe_routing.reference import scores
from moe_routing.reference.arrays import freeze, present
from moe_routing.reference.checks import require_choice, require_count, require_real
from moe_routing.reference.formats import Bools, Floats, Ids
from moe_routing.reference.routes import ABSENT

LossScore = Literal["softmax", "sigmoid"]
AtBalance = Literal["one", "top_k"]
Counted = Literal["all", "first"]
OverLayers = Literal["sum", "mean", "pooled"]
Update = Literal["sign", "centred"]
Mode = Literal["train", "eval", "recompute"]

BALANCE_WORDS: dict[str, tuple[str, ...]] = {
    "score": get_args(LossScore),
    "at_balance": get_args(AtBalance),
    "counted": get_args(Counted),
    "over_layers": get_args(OverLayers),
    "update": get_args(Update),
    "mode": get_args(Mode),
}
"""The values of each field of ``BalanceConfig`` that is a word."""

SIGMOID_EPS = 1e-20
"""What is added to the sum of a token's sigmoids, by which they are divided."""

_SHAPES = {"logits": "LTE", "expert_ids": "LTK", "valid": "T", "bias": "LE"}


@dataclass(frozen=True, kw_only=True)
class BalanceConfig:
    """Which losses, counts and update are asked for.

    ``score`` makes shares of logits: a softmax, or sigmoids over their sum. ``at_balance`` is the
    loss of a perfect balance: ``one``, or ``top_k``, where K is not divided by. ``counted`` are
    all slots, or the first ones. Losses of layers are ``over_layers`` a sum, a mean, or one loss
    of their pooled counts and shares. ``update`` adds ``rate`` times the sign of how far an expert
    is below the mean, and ``centred`` takes off the mean of that. ``mode``: a step of training, of
    evaluation, or of training whose forward pass is run again (``recompute``). Errors:
    ``ValueError`` naming the field.
    """

    num_experts: int
    score: LossScore = "softmax"
    at_balance: AtBalance = "one"
    counted: Counted = "all"
    over_layers: OverLayers = "sum"
    update: Update = "sign"
    mode: Mode = "train"
    rate: float = 2.0**-10

    def __post_init__(self) -> None:
        require_count("num_experts", self.num_experts, at_least=1)
        require_real("rate", self.rate, at_least=0.0)
        for name, words in BALANCE_WORDS.items():
            require_choice(name, getattr(self, name), words)


@dataclass(frozen=True, kw_only=True, eq=False)
class BalanceInputs:
    """Logits ``[L, T, E]``, chosen experts ``[L, T, K]``, valid tokens ``[T]``, bias ``[L, E]``.

    ``valid`` is 1 for a token and 0 for padding; an expert id of -1 is an absent route. Errors:
    ``ValueError`` naming the array and the rule.
    """

    logits: npt.NDArray[np.float32]
    expert_ids: Ids
    valid: Ids
    bias: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        freeze(self, _SHAPES, integers=("expert_ids", "valid"))
        if not np.isin(self.valid, (0, 1)).all():
            t = int(np.argmax(~np.isin(self.valid, (0, 1))))
            raise ValueError(f"Cannot have valid[{t}]={self.valid[t]}: 1 is a token, 0 padding")
        bad = (self.expert_ids < ABSENT) | (self.expert_ids >= self.num_experts)
        if bad.any():
            at = tuple(int(i) for i in np.argwhere(bad)[0])
            raise ValueError(
                f"Cannot have expert_ids{list(at)}={self.expert_ids[at]}: "
                f"ids are below E={self.num_experts}; an absent route is -1"
            )

    @property
    def num_layers(self) -> int:
        """L."""
        return len(self.logits)

    @property
    def num_tokens(self) -> int:
        """T, padding included."""
        return len(self.valid)

    @property
    def num_experts(self) -> int:
        """E."""
        return int(self.logits.shape[2])

    @property
    def top_k(self) -> int:
        """K."""
        return int(self.expert_ids.shape[2])

    @property
    def num_valid(self) -> int:
        """The tokens that are no padding."""
        return int(self.valid.sum())

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays by field name."""
        return present(self, _SHAPES)


def expert_counts(inputs: BalanceInputs, counted: Counted = "all") -> Ids:
    """Return the routes of each expert, ``[L, E]``: of valid tokens, present, of all slots."""
    ids = inputs.expert_ids[:, :, : 1 if counted == "first" else None]
    there: Bools = (ids != ABSENT) & (inputs.valid == 1)[None, :, None]
    found = np.zeros((inputs.num_layers, inputs.num_experts), np.int64)
    layers = np.broadcast_to(np.arange(inputs.num_layers)[:, None, None], ids.shape)
    np.add.at(found, (layers[there], ids[there]), 1)
    return found


def balance_scores(score: LossScore, logits: Floats) -> Floats:
    """Return the share of each expert in each token, ``[L, T, E]``."""
    if score == "softmax":
        return scores.softmax(logits)
    each = scores.sigmoid(logits)
    return np.asarray(each / (each.sum(axis=-1, keepdims=True) + SIGMOID_EPS))


def loss_factors(config: BalanceConfig, inputs: BalanceInputs) -> Floats:
    """Return what each layer's ``sum(shares) * counts`` is multiplied by, ``[L, E]``: no gradient.

    Errors: ``ZeroDivisionError`` without a valid token.
    """
    counts = expert_counts(inputs, config.counted).astype(np.float64)
    layers, rows = inputs.num_layers, inputs.num_valid
    if not rows:
        raise ZeroDivisionError("a loss without a valid token is no number")
    if config.over_layers == "pooled":
        counts = np.broadcast_to(counts.sum(axis=0), counts.shape)
        rows *= layers
    slots = inputs.top_k if config.at_balance == "one" and config.counted == "all" else 1
    mean = layers if config.over_layers == "mean" else 1
    scale = config.num_experts / (slots * mean * float(rows) * rows)
    return np.asarray(counts * scale, np.float64)


def aux_loss(config: BalanceConfig, inputs: BalanceInputs) -> float:
    """Return the auxiliary loss. Errors: as ``loss_factors``."""
    shares = balance_scores(config.score, inputs.logits.astype(np.float64))
    summed = (shares * inputs.valid[None, :, None]).sum(axis=1)
    return float((summed * loss_factors(config, inputs)).sum())


def aux_gradient(config: BalanceConfig, inputs: BalanceInputs) -> Floats:
    """Return the gradient of the auxiliary loss by the logits. Errors: as ``loss_factors``."""
    logits = inputs.logits.astype(np.float64)
    shares, toward = balance_scores(config.score, logits), loss_factors(config, inputs)[:, None, :]
    toward = toward * inputs.valid[None, :, None]
    mean = (shares * toward).sum(axis=-1, keepdims=True)
    if config.score == "softmax":
        return np.asarray(shares * (toward - mean))
    each = scores.sigmoid(logits)
    whole = each.sum(axis=-1, keepdims=True) + SIGMOID_EPS
    return np.asarray(each * (1.0 - each) * (toward - mean) / whole)


def z_loss(config: BalanceConfig, inputs: BalanceInputs) -> float:
    """Return the mean square of the logarithm of the sum of exponentials, over valid tokens.

    Errors: ``ZeroDivisionError`` without a valid token.
    """
    logits = inputs.logits.astype(np.float64)
    most = logits.max(axis=-1)
    each = most + np.log(np.exp(logits - most[..., None]).sum(axis=-1))
    total = float((each**2 * inputs.valid).sum()) / inputs.num_valid
    return total if config.over_layers == "sum" else total / inputs.num_layers


def updated_bias(config: BalanceConfig, inputs: BalanceInputs) -> Floats:
    """Return the bias after the step, ``[L, E]``; in evaluation it stays."""
    bias = inputs.bias.astype(np.float64)
    return bias if config.mode == "eval" else bias + bias_step(config, inputs)


def bias_step(config: BalanceConfig, inputs: BalanceInputs) -> Floats:
    """Return what a step of training adds to the bias, ``[L, E]``."""
    counts = expert_counts(inputs)
    below = np.sign(counts.sum(axis=1, keepdims=True) - counts * config.num_experts)
    step = config.rate * below.astype(np.float64)
    mean = step.mean(axis=1, keepdims=True) if config.update == "centred" else 0.0
    return np.asarray(step - mean, np.float64)
