"""What a router is: one frozen configuration with independent axes, validated on construction."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from moe_routing.reference.checks import (
    is_number,
    require_choice,
    require_count,
    require_flag,
    require_kind,
    require_real,
    shown,
)

Score = Literal["softmax", "sigmoid", "sqrtsoftplus", "identity"]
WeightsFrom = Literal["scores", "masked_scores", "softmax_of_selected", "sigmoid_of_selected"]
LeastPrecise = Literal["input", "float32"]

SCORES: tuple[str, ...] = get_args(Score)
WEIGHTS_FROM: tuple[str, ...] = get_args(WeightsFrom)
LEAST_PRECISE: tuple[str, ...] = get_args(LeastPrecise)


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Group-limited selection: only experts of the ``kept`` best groups compete.

    The E experts form ``count`` consecutive groups of E / count. A group scores the
    sum of its ``top`` best (biased) scores: 1 is the maximum (DeepSeek-V2), 2 is
    DeepSeek-V3, ``top_k // kept`` is Megatron. A group smaller than ``top`` scores the
    sum of what it has. Experts of the other groups compete with the score ``fill``
    (``-inf`` or ``0.0``). With ``from_each`` no group is left out: every group gives its best
    ``top_k / count`` experts (InternS1-Pro), ``kept`` is ``count``, and ``top`` and ``fill`` are
    not read. Errors: ``ValueError`` naming the field.
    """

    count: int
    kept: int
    top: int = 2
    fill: float = -math.inf
    from_each: bool = False

    def __repr__(self) -> str:
        each = ", from_each=True" if self.from_each else ""
        return (
            f"Groups(count={self.count}, kept={self.kept}, top={self.top}, fill={self.fill}{each})"
        )

    def __post_init__(self) -> None:
        require_count("Groups.count", self.count, at_least=1)
        require_count("Groups.kept", self.kept, at_least=1)
        require_count("Groups.top", self.top, at_least=1)
        if self.kept > self.count:
            raise ValueError(
                f"Cannot have Groups.kept={self.kept} > Groups.count={self.count}: "
                "keep at most every group"
            )
        require_flag("Groups.from_each", self.from_each)
        if self.from_each and self.kept < self.count:
            raise ValueError(
                f"Cannot have Groups.kept={self.kept} < Groups.count={self.count} with "
                f"from_each=True: every group gives experts, so write kept={self.count}"
            )
        if not is_number(self.fill) or self.fill not in (-math.inf, 0.0):
            raise ValueError(
                f"Expected Groups.fill to be -inf or 0.0 but got fill={shown(self.fill)}: "
                "no shipped router fills excluded experts with anything else"
            )


@dataclass(frozen=True, kw_only=True)
class Renormalize:
    """Divide the K selected weights by their norm.

    With w the selected scores, the divisor is ``max(norm + eps, floor)`` where norm is
    ``(sum of |w|**order) ** (1 / order)``; ``order=1`` is the plain sum. Errors:
    ``ValueError`` naming the field.
    """

    eps: float = 0.0
    floor: float = 0.0
    order: float = 1.0

    def __post_init__(self) -> None:
        require_real("Renormalize.eps", self.eps, at_least=0.0)
        require_real("Renormalize.floor", self.floor, at_least=0.0)
        require_real("Renormalize.order", self.order, above=0.0)


MOST_SHARED = 256
"""The shared slots of a token, at most: as many as large models have experts."""


@dataclass(frozen=True, kw_only=True)
class SharedSlots:
    """Shared experts that run as slots of their own, behind the K that are routed.

    Slot K + s of every token holds expert E + s, for s below ``count``, with ``weight``: none is
    selected, none is in a norm, and no scale is applied to them. 1 / scale is the weight where the
    layer multiplies its sum by the scale. There are at most 256. Errors: ``ValueError`` naming the
    field.
    """

    count: int = 1
    weight: float = 1.0

    def __post_init__(self) -> None:
        require_count("SharedSlots.count", self.count, at_least=1)
        if self.count > MOST_SHARED:
            raise ValueError(
                f"Expected SharedSlots.count <= {MOST_SHARED} but got {shown(self.count)}: each "
                "is a column of every answer, and models have one or two"
            )
        require_real("SharedSlots.weight", self.weight, above=0.0)


@dataclass(frozen=True, kw_only=True)
class RmsNorm:
    """Root-mean-square normalisation of the hidden states before the gate (Gemma 4).

    x becomes ``x / sqrt(mean(x**2) + eps) * hidden_scale / sqrt(H)``, with
    ``hidden_scale`` taken from the inputs. Errors: ``ValueError`` naming the field.
    """

    eps: float = 1e-6

    def __post_init__(self) -> None:
        require_real("RmsNorm.eps", self.eps, above=0.0)


@dataclass(frozen=True, kw_only=True)
class RouterConfig:
    """One router, as a point on independent axes; the defaults are the plain softmax router.

    ``num_experts`` is E and ``top_k`` is K. ``score`` turns logits into scores
    (``identity`` selects in logit space), ``weights_from`` says what the weights are
    gathered from, and ``groups``, ``renormalize``, ``scale``, ``logit_softcap``,
    ``logit_multiplier``, ``input_norm`` and ``shared_slots`` switch the optional stages.
    ``logits_dtype``, ``scores_dtype`` and ``weights_dtype`` name the *least precise* storage that
    the router permits for that stage: ``input`` is the dtype of the hidden states.

    Errors: ``ValueError`` that names the argument, shows its value and states the rule.
    Source: ``docs/spec/index.md``, one page a stage.
    """

    num_experts: int
    top_k: int
    score: Score = "softmax"
    weights_from: WeightsFrom = "scores"
    groups: Groups | None = None
    renormalize: Renormalize | None = None
    scale: float = 1.0
    logit_softcap: float | None = None
    logit_multiplier: float = 1.0
    logits_dtype: LeastPrecise = "float32"
    scores_dtype: LeastPrecise = "float32"
    weights_dtype: LeastPrecise = "float32"
    input_norm: RmsNorm | None = None
    shared_slots: SharedSlots | None = None

    def __post_init__(self) -> None:
        self._check_axes()
        self._check_counts()
        if self.score == "identity" and self.weights_from in ("scores", "masked_scores"):
            raise ValueError(
                f"Cannot have weights_from={self.weights_from!r} with score='identity': "
                "logits are not weights; use softmax_of_selected or sigmoid_of_selected"
            )

    @classmethod
    def unchecked(cls, **fields_: Any) -> RouterConfig:
        """Build a configuration without any check, to test whether a *backend* rejects it.

        Takes the fields of ``RouterConfig``. Errors: ``TypeError`` for an unknown or a
        missing field.
        """
        known = {field.name: field.default for field in fields(cls)}
        unknown = sorted(set(fields_) - set(known))
        missing = sorted({"num_experts", "top_k"} - set(fields_))
        if unknown or missing:
            raise TypeError(f"Unknown RouterConfig fields {unknown}, missing fields {missing}")
        config = object.__new__(cls)
        for name, value in {**known, **fields_}.items():
            object.__setattr__(config, name, value)
        return config

    @property
    def experts_per_group(self) -> int:
        """The number of experts in a group: E where there are no groups."""
        return self.num_experts // self.groups.count if self.groups else self.num_experts

    def _check_axes(self) -> None:
        require_choice("score", self.score, SCORES)
        require_choice("weights_from", self.weights_from, WEIGHTS_FROM)
        for name in ("logits_dtype", "scores_dtype", "weights_dtype"):
            require_choice(name, getattr(self, name), LEAST_PRECISE)
        for name, kind in (
            ("groups", Groups),
            ("renormalize", Renormalize),
            ("input_norm", RmsNorm),
            ("shared_slots", SharedSlots),
        ):
            part = getattr(self, name)
            require_kind(name, part, kind)
            if part is not None:
                kind(**vars(part))  # a part made around its own checks is checked here
        require_real("scale", self.scale)
        require_real("logit_multiplier", self.logit_multiplier)
        if self.logit_softcap is not None:
            require_real("logit_softcap", self.logit_softcap, above=0.0)

    def _check_counts(self) -> None:
        require_count("num_experts", self.num_experts, at_least=1)
        require_count("top_k", self.top_k, at_least=1)
        if self.top_k > self.num_experts:
            raise ValueError(
                f"Cannot have top_k={self.top_k} > num_experts={self.num_experts}: "
                "a token selects distinct experts"
            )
        if self.groups is None:
            return
        if self.num_experts % self.groups.count:
            raise ValueError(
                f"Cannot have num_experts={self.num_experts} in {self.groups}: "
                f"groups are of equal size, so count must divide num_experts"
            )
        if self.groups.from_each and self.top_k % self.groups.count:
            raise ValueError(
                f"Cannot have top_k={self.top_k} from each of {self.groups.count} groups: every "
                "group gives top_k / count experts, so count must divide top_k"
            )
        left = self.groups.kept * self.experts_per_group
        if self.top_k > left:
            raise ValueError(
                f"Cannot have top_k={self.top_k} > {left} experts left by {self.groups}: "
                "keep more groups or select fewer experts"
            )
