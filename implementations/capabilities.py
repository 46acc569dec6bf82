"""What a backend says that it can do: claims, dtypes, layouts, numerics, limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from moe_routing.reference import Groups, Renormalize, RouterConfig, RouterInputs
from moe_routing.reference.config import LEAST_PRECISE, SCORES, WEIGHTS_FROM
from moe_routing.reference.formats import INPUT_FORMATS
from moe_routing.reference.inputs import BIAS_ON

SELECTION_BIAS = ("none", *BIAS_ON)
LAYOUTS = ("contiguous", "strided")
_EITHER = (False, True)


class Unsupported(Exception):
    """The backend does not do this, and says so instead of answering."""


class _Any:
    """Every value that the specification permits."""

    def __contains__(self, value: object) -> bool:
        return True

    def __repr__(self) -> str:
        return "ANY"

    def __reduce__(self) -> str:
        return "ANY"  # claims travel between processes, and ANY stays the one


ANY: Final = _Any()
"""Claims every value of an axis."""


@dataclass(frozen=True, kw_only=True)
class GroupRule:
    """The group settings that a claim covers: any count and any number kept, this rule.

    ``top`` lists the supported ``Groups.top`` values (``ANY``: all), ``fill`` the fills.
    """

    top: tuple[int, ...] | _Any = ANY
    fill: tuple[float, ...] = (-math.inf, 0.0)

    def covers(self, groups: Groups) -> bool:
        """Tell whether ``groups`` follow this rule."""
        return groups.top in self.top and groups.fill in self.fill


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A product of axis values: a configuration is claimed where every axis holds.

    Each axis lists its permitted values; the defaults permit all. The boolean axes say
    whether the part may be absent (False), present (True) or either. ``name`` is for the
    adapter, to tell its claims apart. Several claims together describe a backend whose
    functions are sparse tuples of the axes.
    """

    name: str = ""
    score: tuple[str, ...] = SCORES
    weights_from: tuple[str, ...] = WEIGHTS_FROM
    groups: tuple[GroupRule | None, ...] = (None, GroupRule())
    renormalize: tuple[Renormalize | None, ...] | _Any = ANY
    scale: tuple[float, ...] | _Any = ANY
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

    def __post_init__(self) -> None:
        for axis, permitted in vars(self).items():
            if axis != "name" and not isinstance(permitted, (tuple, _Any)):
                raise ValueError(
                    f"Expected Claim.{axis} to be a tuple of permitted values but got "
                    f"{permitted!r}: write ({permitted!r},)"
                )

    def refusals(self, config: RouterConfig, inputs: RouterInputs) -> list[str]:
        """Return what this claim lacks for the call, one phrase an axis; empty: claimed."""
        values = {axis: read(config) for axis, read in CONFIG_AXES.items()}
        values |= {axis: read(inputs) for axis, read in INPUT_AXES.items()}
        return [
            f"{axis}={value!r}"
            for axis, value in values.items()
            if not _holds(getattr(self, axis), value)
        ]

    def covers(self, config: RouterConfig) -> bool:
        """Tell whether the claim holds for ``config``, whatever the inputs are."""
        return all(_holds(getattr(self, axis), read(config)) for axis, read in CONFIG_AXES.items())


CONFIG_AXES: dict[str, Callable[[RouterConfig], Any]] = {
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
}
"""How each axis that is part of the configuration is read off it."""

INPUT_AXES: dict[str, Callable[[RouterInputs], Any]] = {
    "selection_bias": lambda i: "none" if i.selection_bias is None else i.selection_bias_on,
    "gate_bias": lambda i: i.gate_bias is not None,
    "gate_delta": lambda i: i.gate_delta is not None,
    "per_expert_scale": lambda i: i.per_expert_scale is not None,
    "expert_table": lambda i: i.expert_table is not None,
}
"""How each axis that is part of the inputs is read off them."""


def _narrowed_claim(claim: Claim, axes: dict[str, tuple[Any, ...]]) -> Claim | None:
    kept = {}
    for axis, wanted in axes.items():
        permitted = getattr(claim, axis)
        if axis == "groups":
            kept[axis] = tuple(rule for rule in permitted if (rule is not None) in wanted)
        elif permitted is ANY:
            kept[axis] = wanted
        else:
            kept[axis] = tuple(value for value in permitted if value in wanted)
    return replace(claim, **kept) if all(kept.values()) else None


def _holds(permitted: Iterable[Any] | _Any, value: object) -> bool:
    if isinstance(value, Groups):
        rules = (GroupRule(),) if isinstance(permitted, _Any) else permitted
        return any(isinstance(rule, GroupRule) and rule.covers(value) for rule in rules)
    return value in permitted


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """Legitimately coarser algorithms, declared; each widens the judge by a formula.

    ``multiply="tf32"``: float32 products with 11-bit operands. ``sigmoid="absolute"`` and
    ``softplus="absolute"``: forms whose error is absolute (tanh, log(1 + exp)).
    ``flush_subnormals``: subnormal operands count as 0. ``select_bits=n``: selection
    compares only the n leading significand bits. Source: ``docs/spec/judging.md``.
    """

    multiply: Literal["exact", "tf32"] = "exact"
    sigmoid: Literal["relative", "absolute"] = "relative"
    softplus: Literal["relative", "absolute"] = "relative"
    flush_subnormals: bool = False
    select_bits: int | None = None

    def declared(self) -> list[str]:
        """Return the relaxations that are in force, as ``name=value``."""
        plain = Numerics()
        return [
            f"{name}={value!r}"
            for name, value in vars(self).items()
            if value != getattr(plain, name)
        ]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The sizes that a backend stops at: E, K and T at most, and what must divide E."""

    max_experts: int | None = None
    max_top_k: int | None = None
    max_tokens: int | None = None
    experts_multiple_of: int = 1

    def refusals(self, config: RouterConfig, inputs: RouterInputs) -> list[str]:
        """Return the sizes of the call that are beyond these limits, one phrase each."""
        sizes = (
            ("num_experts", config.num_experts, self.max_experts),
            ("top_k", config.top_k, self.max_top_k),
            ("num_tokens", inputs.num_tokens, self.max_tokens),
        )
        found = [f"{name}={n} > {most}" for name, n, most in sizes if most and n > most]
        if config.num_experts % self.experts_multiple_of:
            found.append(f"num_experts={config.num_experts} % {self.experts_multiple_of} != 0")
        return found


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """Everything that a backend claims; without arguments it claims the whole spec.

    ``claims``: a configuration is claimed where some ``Claim`` holds. ``dtypes`` of the
    inputs; ``layouts`` of the inputs in memory. ``takes`` says what the backend is given:
    hidden states, or logits (then only cases with ``inputs.logits`` are drawn).
    ``logits`` says what ``Routing.logits`` are: ``routed`` (the very numbers that were
    routed), ``copy`` (a rounded copy, for an auxiliary loss) or ``none``.
    """

    claims: tuple[Claim, ...] = (Claim(),)
    dtypes: tuple[str, ...] = tuple(INPUT_FORMATS)
    layouts: tuple[str, ...] = LAYOUTS
    takes: Literal["hidden", "logits"] = "hidden"
    logits: Literal["routed", "copy", "none"] = "none"
    numerics: Numerics = field(default_factory=Numerics)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not isinstance(self.claims, tuple):
            raise ValueError(f"Expected claims to be a tuple of Claim but got {self.claims!r}")
        for name, known in (("dtypes", tuple(INPUT_FORMATS)), ("layouts", LAYOUTS)):
            unknown = [value for value in getattr(self, name) if value not in known]
            if unknown:
                raise ValueError(f"Cannot have {name}={unknown}: known are {', '.join(known)}")

    def require(self, config: RouterConfig, inputs: RouterInputs) -> Claim:
        """Return the first claim that covers the call. Errors: ``Unsupported``, saying why not."""
        outside = self._outside(config, inputs)
        lacking = [(claim.refusals(config, inputs), claim) for claim in self.claims]
        for refusals, claim in lacking:
            if not refusals and not outside:
                return claim
        nearest = min((refusals for refusals, _ in lacking), key=len, default=["any claim"])
        raise Unsupported(f"not claimed: {', '.join(outside or nearest)}")

    def admits(self, config: RouterConfig, inputs: RouterInputs) -> bool:
        """Tell whether the call is claimed."""
        return not self._outside(config, inputs) and any(
            not claim.refusals(config, inputs) for claim in self.claims
        )

    def narrowed(self, **axes: tuple[Any, ...]) -> Capabilities:
        """Return these capabilities with only what is claimed of ``axes``; may claim nothing.

        Each axis lists the values wanted; ``groups=(True,)`` stands for any claimed rule.
        """
        claims = (_narrowed_claim(claim, axes) for claim in self.claims)
        return replace(self, claims=tuple(claim for claim in claims if claim is not None))

    def _outside(self, config: RouterConfig, inputs: RouterInputs) -> list[str]:
        outside = self.limits.refusals(config, inputs)
        if inputs.dtype not in self.dtypes:
            outside.append(f"dtype={inputs.dtype!r}")
        if self.takes == "logits" and inputs.logits is None:
            outside.append("hidden states (takes logits)")
        return outside
