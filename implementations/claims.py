"""Claims: which configurations a backend answers, as products of axis values."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from moe_routing.implementations.contradictions import contradiction
from moe_routing.implementations.from_two import FromTwo
from moe_routing.implementations.group_rule import GroupRule as GroupRule
from moe_routing.implementations.model_axes import ModelConfig, config_axes, preset_axes
from moe_routing.implementations.permitted import (
    ANY,
    AnyValue,
    Closed,
    PositiveValue,
    check_values,
    counts,
    one_of,
    parts,
)
from moe_routing.reference import (
    Groups,
    Renormalize,
    RouterConfig,
    RouterInputs,
    SharedSlots,
)
from moe_routing.reference.checks import require_real
from moe_routing.reference.config import LEAST_PRECISE, SCORES, WEIGHTS_FROM
from moe_routing.reference.inputs import BIAS_ON

SELECTION_BIAS = ("none", *BIAS_ON)
_EITHER = (False, True)
_KNOWN = {
    "score": SCORES,
    "weights_from": WEIGHTS_FROM,
    "selection_bias": SELECTION_BIAS,
    **dict.fromkeys(("logits_dtype", "scores_dtype", "weights_dtype", "gate_dtype"), LEAST_PRECISE),
    **dict.fromkeys(("logit_softcap", "logit_multiplier", "input_norm"), _EITHER),
    **dict.fromkeys(("gate_bias", "gate_delta", "per_expert_scale", "expert_table"), _EITHER),
}


_OPEN = (tuple, AnyValue)


def _scales(values: Any) -> None:
    for each in values:
        require_real("each value of Claim.scale", each)


@dataclass(frozen=True, kw_only=True)
class Claim(Closed):
    """A product of axis values: a configuration is claimed where every axis holds.

    Each axis lists its permitted values; the defaults permit all, those of ``Claim.plain``
    the plain router; ``gate_dtype`` and ``shared_slots``, which came after 1.0, are plain in both.
    The boolean axes say whether the part may be absent (False), present (True) or either.
    ``top_k`` may be a range; a backend that renormalises from K = 2 on lists ``FromTwo(rule)``.
    ``name`` is for the adapter, to distinguish its claims. Several claims together describe a
    backend whose functions are sparse tuples of the axes. Errors: ``ValueError`` naming the axis.
    """

    name: str = ""
    top_k: tuple[int, ...] | range | AnyValue = ANY
    score: tuple[str, ...] = SCORES
    weights_from: tuple[str, ...] = WEIGHTS_FROM
    groups: tuple[GroupRule | None, ...] = (None, GroupRule())
    renormalize: tuple[Renormalize | FromTwo | None, ...] | AnyValue = ANY
    scale: tuple[float, ...] | AnyValue = ANY
    logit_softcap: tuple[bool, ...] = _EITHER
    logit_multiplier: tuple[bool, ...] = _EITHER
    logits_dtype: tuple[str, ...] = LEAST_PRECISE
    scores_dtype: tuple[str, ...] = LEAST_PRECISE
    weights_dtype: tuple[str, ...] = LEAST_PRECISE
    input_norm: tuple[bool, ...] = _EITHER
    selection_bias: tuple[str, ...] = SELECTION_BIAS
    gate_bias: tuple[bool, ...] = _EITHER
    gate_delta: tuple[bool, ...] = _EITHER
    per_expert_scale: tuple[bool, ...] = _EITHER
    expert_table: tuple[bool, ...] = _EITHER
    gate_dtype: tuple[str, ...] = ("input",)
    shared_slots: tuple[SharedSlots | None, ...] | AnyValue = (None,)

    def __post_init__(self) -> None:
        for axis, (check, example, kinds) in _CHECKS.items():
            check_values(f"Claim.{axis}", getattr(self, axis), check, example, kinds)
        for axis, known in _KNOWN.items():
            check = one_of(f"Claim.{axis}", known)
            check_values(f"Claim.{axis}", getattr(self, axis), check, f"some of {known!r}")
        if words := contradiction(vars(self)):
            raise ValueError(f"Cannot have {words}")

    @classmethod
    def plain(cls, **axes: Any) -> Claim:
        """Return the claim of the plain softmax router, with ``axes`` replaced.

        Other parts are absent: no groups, no bias, no renormalisation, no scale. Of an axis
        that a later version adds, the plain value is claimed.
        """
        parts = {axis: (False,) for axis, permitted in vars(cls()).items() if permitted == _EITHER}
        plain = {
            "score": ("softmax",),
            "weights_from": ("scores",),
            "groups": (None,),
            "renormalize": (None,),
            "scale": (1.0,),
            "selection_bias": ("none",),
        }
        if unknown := sorted(set(axes) - set(vars(cls()))):
            near = difflib.get_close_matches(unknown[0], vars(cls()), n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise TypeError(f"A claim has no axis {unknown[0]!r}{hint}")
        return cls(**{**parts, **plain, **axes})

    @classmethod
    def whole(cls, **axes: Any) -> Claim:
        """Return the claim of the whole specification, with ``axes`` replaced.

        It permits all on every axis, also on those that came after 1.0.
        """
        groups = (None, GroupRule(from_each=_EITHER))
        later = {"gate_dtype": LEAST_PRECISE, "groups": groups, "shared_slots": ANY}
        return cls(**{**later, **axes})

    @classmethod
    def of_preset(cls, name: str, **axes: Any) -> Claim:
        """Return the claim of what a shipped model (``deepseek_v3``) needs, ``axes`` replaced."""
        return cls.plain(**{**preset_axes(name, GroupRule), **axes})

    @classmethod
    def of_config(cls, config: ModelConfig, **axes: Any) -> Claim:
        """Return the claim of what a model's ``config.json`` needs, with ``axes`` replaced."""
        return cls.plain(**{**config_axes(config, GroupRule), **axes})

    def refusals(
        self, config: RouterConfig, inputs: RouterInputs, takes: str = "hidden"
    ) -> list[str]:
        """Return what this claim lacks for the call, one phrase an axis; empty: claimed.

        The parts of the gate do not count for a backend that ``takes`` logits.
        """
        return [
            f"{axis}={value!r}"
            for axis, value in axes_of(config, inputs, takes).items()
            if not _holds(getattr(self, axis), value, config.top_k)
        ]

    def permits(self, values: Mapping[str, Any]) -> bool:
        """Return whether nothing is lacking for a call that has ``values`` on the axes."""
        top_k = values["top_k"]
        return all(_holds(getattr(self, axis), value, top_k) for axis, value in values.items())

    def narrowed(self, axes: dict[str, tuple[Any, ...]]) -> Claim | None:
        """Return this claim with only what it permits of ``axes``, or None where that is nothing.

        Each axis lists the values wanted; ``groups=(True,)`` stands for any rule.
        """
        kept: dict[str, Any] = {}
        for axis, wanted in axes.items():
            permitted = getattr(self, axis)
            if axis == "groups":
                kept[axis] = tuple(rule for rule in permitted if (rule is not None) in wanted)
            elif isinstance(permitted, AnyValue):
                kept[axis] = tuple(value for value in wanted if value in permitted)
            else:
                kept[axis] = tuple(value for value in permitted if value in wanted)
        if not all(kept.values()) or contradiction({**vars(self), **kept}):
            return None
        return replace(self, **kept)

    @property
    def least_top_k(self) -> int:
        """The least K that the claim covers."""
        if isinstance(self.top_k, range):
            return self.top_k.start  # min would walk through all of it
        return 1 if isinstance(self.top_k, AnyValue) else min(self.top_k)

    def covers(self, config: RouterConfig) -> bool:
        """Return whether the claim holds for ``config`` with some inputs."""
        masked = config.groups is not None or config.weights_from == "masked_scores"
        if masked and False not in self.expert_table:
            return False  # a table selects without groups
        values = {axis: read(config) for axis, read in CONFIG_AXES.items()}
        return self.permits(values)


_CHECKS: dict[str, tuple[Callable[[Any], None], str, tuple[type, ...]]] = {
    "top_k": (counts("Claim.top_k"), "(1, 2), for example", (*_OPEN, range)),
    "scale": (_scales, "(2.5,), for example", (*_OPEN, PositiveValue)),
    "renormalize": (
        parts("Claim.renormalize", Renormalize, FromTwo),
        "(Renormalize(),), for example",
        _OPEN,
    ),
    "groups": (parts("Claim.groups", GroupRule), "(GroupRule(),), for example", (tuple,)),
    "shared_slots": (
        parts("Claim.shared_slots", SharedSlots),
        "(SharedSlots(),), for example",
        _OPEN,
    ),
}
"""How each axis that is no list of words is checked, what to write, and as what."""

CONFIG_AXES: dict[str, Callable[[RouterConfig], Any]] = {
    "top_k": lambda c: c.top_k,
    "score": lambda c: c.score,
    "weights_from": lambda c: c.weights_from,
    "groups": lambda c: c.groups,
    "renormalize": lambda c: c.renormalize,
    "scale": lambda c: c.scale,
    "logit_softcap": lambda c: c.logit_softcap is not None,
    "logit_multiplier": lambda c: c.logit_multiplier != 1.0,
    "logits_dtype": lambda c: c.logits_dtype,
    "scores_dtype": lambda c: c.scores_dtype,
    "weights_dtype": lambda c: c.weights_dtype,
    "input_norm": lambda c: c.input_norm is not None,
    "shared_slots": lambda c: c.shared_slots,
}
"""How each axis that is part of the configuration is read off it."""

INPUT_AXES: dict[str, Callable[[RouterInputs], Any]] = {
    "selection_bias": lambda i: "none" if i.selection_bias is None else i.selection_bias_on,
    "gate_bias": lambda i: i.gate_bias is not None,
    "gate_delta": lambda i: i.gate_delta is not None,
    "per_expert_scale": lambda i: i.per_expert_scale is not None,
    "expert_table": lambda i: i.expert_table is not None,
    "gate_dtype": lambda i: i.gate_dtype,
}
"""How each axis that is part of the inputs is read off them."""

GATE_AXES = ("gate_bias", "gate_delta")
"""The axes about what makes the logits."""


def axes_of(config: RouterConfig, inputs: RouterInputs, takes: str) -> dict[str, Any]:
    """Return what a call has on each axis; on those of the gate only where hidden states go in."""
    values = {axis: read(config) for axis, read in CONFIG_AXES.items()}
    values |= {axis: read(inputs) for axis, read in INPUT_AXES.items()}
    if inputs.dtype == "float32":
        del values["gate_dtype"]  # in float32 the gate is no other
    if takes == "logits":
        return {axis: value for axis, value in values.items() if axis not in GATE_AXES}
    return values


def _holds(permitted: Iterable[Any] | AnyValue, value: object, top_k: int) -> bool:
    if isinstance(value, Groups):
        rules = (GroupRule(),) if isinstance(permitted, AnyValue) else permitted
        return any(isinstance(rule, GroupRule) and rule.covers(value, top_k) for rule in rules)
    return value in permitted
