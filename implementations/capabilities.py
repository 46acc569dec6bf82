"""What a backend declares that it can do: claims, dtypes, layouts, numerics, limits."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from moe_routing.implementations.balances import Balances
from moe_routing.implementations.claims import Claim, axes_of
from moe_routing.implementations.composes import Composes
from moe_routing.implementations.computes import Computes
from moe_routing.implementations.differentiates import OF_GATE, Differentiates
from moe_routing.implementations.drops import Drops
from moe_routing.implementations.expanded import expanded
from moe_routing.implementations.limits import Limits as Limits
from moe_routing.implementations.pads import Pads
from moe_routing.implementations.permitted import Closed, check_values, one_of
from moe_routing.implementations.permutes import Permutes
from moe_routing.implementations.promises import Promises
from moe_routing.implementations.replays import Replays
from moe_routing.implementations.shards import Shards
from moe_routing.implementations.unsupported import Unsupported as Unsupported
from moe_routing.reference import (
    ExpertsInputs,
    LayerConfig,
    LayerInputs,
    RouterConfig,
    RouterInputs,
    SharedExpertInputs,
)
from moe_routing.reference.checks import (
    require_choice,
    require_count,
    require_flag,
    require_part,
    shown,
)
from moe_routing.reference.formats import INPUT_FORMATS

Multiply = Literal["exact", "tf32"]
ErrorIs = Literal["relative", "absolute"]
Takes = Literal["hidden", "logits"]
Logits = Literal["routed", "copy", "none"]

LAYOUTS = ("contiguous", "strided")


@dataclass(frozen=True, kw_only=True)
class Numerics(Closed):
    """Legitimately coarser algorithms, declared; each widens the judge by a formula.

    ``multiply="tf32"``: float32 products with 11-bit operands. ``sigmoid="absolute"`` and
    ``softplus="absolute"``: forms whose error is absolute (tanh, log(1 + exp)).
    ``flush_subnormals``: subnormal operands count as 0. ``select_bits=n``: selection
    compares only the n leading significand bits. Source: ``docs/spec/judging.md``.
    Errors: ``ValueError`` naming the field.
    """

    multiply: Multiply = "exact"
    sigmoid: ErrorIs = "relative"
    softplus: ErrorIs = "relative"
    flush_subnormals: bool = False
    select_bits: int | None = None

    def __post_init__(self) -> None:
        require_choice("Numerics.multiply", self.multiply, get_args(Multiply))
        require_choice("Numerics.sigmoid", self.sigmoid, get_args(ErrorIs))
        require_choice("Numerics.softplus", self.softplus, get_args(ErrorIs))
        require_flag("Numerics.flush_subnormals", self.flush_subnormals)
        if self.select_bits is not None:
            require_count("Numerics.select_bits", self.select_bits, at_least=1)

    def declared(self) -> list[str]:
        """Return the relaxations that are in force, as ``name=value``."""
        plain = Numerics()
        return [
            f"{name}={value!r}"
            for name, value in vars(self).items()
            if value != getattr(plain, name)
        ]


# Everything that there is to claim, made once: an adapter may make its capabilities in each call.
_NUMERICS = Numerics()
_LIMITS = Limits()
_PERMUTES = Permutes()
_DIFFERENTIATES = Differentiates()
_COMPUTES = Computes()
_REPLAYS = Replays()
_SHARDS = Shards()
_DROPS = Drops()
_PADS = Pads()
_BALANCES = Balances()
_COMPOSES = Composes()
_PROMISES = Promises()


@dataclass(frozen=True, kw_only=True)
class Capabilities(Closed):
    """Everything that a backend claims; without arguments it claims the whole spec.

    ``claims``: a configuration is claimed where some ``Claim`` holds. ``dtypes`` of the
    inputs; ``layouts`` of the inputs in memory: without ``strided``, each array lies in rows,
    the last index running fastest. ``takes`` says what the backend is given:
    hidden states, or logits (then only cases with ``inputs.logits`` are drawn).
    ``logits`` says what ``Routing.logits`` are: ``routed`` (the very numbers that were
    routed), ``copy`` (a rounded copy, for an auxiliary loss) or ``none``. ``threads`` says
    that several threads may call it at the same time. ``permutes`` is about the method
    ``permute``, where there is one; ``gradients``, ``computes``, ``shards``, ``replays``,
    ``drops``, ``pads`` and ``balances`` about ``gradients``, ``experts``, ``shard``, ``replay``,
    ``drop``, ``route_padded`` and ``balance``; ``composes``, with others of them, about ``layer``.
    ``promises`` are stricter contracts than the specification's.
    Errors: ``ValueError`` naming the field.
    """

    claims: tuple[Claim, ...] = (Claim(),)
    dtypes: tuple[str, ...] = tuple(INPUT_FORMATS)
    layouts: tuple[str, ...] = LAYOUTS
    takes: Takes = "hidden"
    logits: Logits = "none"
    numerics: Numerics = _NUMERICS
    limits: Limits = _LIMITS
    threads: bool = False
    permutes: Permutes = _PERMUTES
    gradients: Differentiates = _DIFFERENTIATES
    computes: Computes = _COMPUTES
    replays: Replays = _REPLAYS
    shards: Shards = _SHARDS
    drops: Drops = _DROPS
    pads: Pads = _PADS
    balances: Balances = _BALANCES
    composes: Composes = _COMPOSES
    promises: Promises = _PROMISES

    def __post_init__(self) -> None:
        require_choice("takes", self.takes, get_args(Takes))
        require_choice("logits", self.logits, get_args(Logits))
        if not isinstance(self.threads, bool):
            raise ValueError(f"Expected threads to be True or False but got {self.threads!r}")
        for each in fields(self):
            if isinstance(each.default, Closed):  # a part, which is of its default's kind
                require_part(each.name, getattr(self, each.name), type(each.default))
        self._check_claims()
        for name, known in (("dtypes", tuple(INPUT_FORMATS)), ("layouts", LAYOUTS)):
            if getattr(self, name) != ():  # of which no case can be drawn
                check_values(name, getattr(self, name), one_of(name, known), f"some of {known!r}")
        for place, claim in enumerate(self.claims, start=1):
            self.limits.check_rules(f"claim {place}", claim.groups)
            grouped = None not in claim.groups
            self.limits.check_room(f"claim {place}", claim.top_k, grouped=grouped)
            if self._too_late_for(claim):
                raise ValueError(
                    f"Cannot have takes='logits' with claim {place}, which has "
                    "input_norm=(True,): the norm comes before the logits"
                )
        object.__setattr__(self, "claims", tuple(expanded(self.claims, self.limits)))

    @property
    def differentiated(self) -> tuple[str, ...]:
        """The gradients that are claimed: a backend that takes logits has theirs, and no gate's."""
        of = self.gradients.of
        if self.takes == "hidden":
            return of
        return ("logits", *(name for name in of if name not in (*OF_GATE, "logits")))

    def _check_claims(self) -> None:
        """Raise ``ValueError`` unless the claims are a tuple of claims."""
        expected = "Expected claims to be a tuple of Claim"
        if isinstance(self.claims, Claim):
            raise ValueError(f"{expected} but got a Claim: write (claim,)")
        if not isinstance(self.claims, tuple):
            raise ValueError(f"{expected} but got a {type(self.claims).__name__}")
        if not all(isinstance(each, Claim) for each in self.claims):
            raise ValueError(f"{expected} but got {shown(self.claims)}")

    def require(self, config: RouterConfig, inputs: RouterInputs) -> Claim:
        """Return the first claim that covers the call. Errors: ``Unsupported``, saying why not."""
        nearest, lacking = self.nearest(config, inputs)
        refusals = self._outside(config, inputs) or lacking
        if nearest is None or refusals:
            raise Unsupported(f"not claimed: {', '.join(refusals)}")
        return nearest

    def refusals(self, config: RouterConfig, inputs: RouterInputs) -> list[str]:
        """Return what is not claimed of the call, a phrase each: sizes and dtype, or else axes."""
        return self._outside(config, inputs) or self.nearest(config, inputs)[1]

    def layer_refusals(self, config: LayerConfig, inputs: LayerInputs) -> list[str]:
        """Return what is not claimed of a call of ``layer``, one phrase each; empty: claimed.

        That is what is not claimed of its routing, of its experts, or of its shared expert.
        """
        found = self.refusals(config.router, inputs)
        return found + self.composes.refusals(config, inputs, self.computes)

    def require_layer(self, config: LayerConfig, inputs: LayerInputs) -> None:
        """Refuse a call of ``layer`` that is not claimed. Errors: ``Unsupported``, saying why."""
        if refused := self.layer_refusals(config, inputs):
            raise Unsupported(f"not claimed: {', '.join(refused)}")

    def nearest(self, config: RouterConfig, inputs: RouterInputs) -> tuple[Claim | None, list[str]]:
        """Return the claim that lacks least for the call, and what it lacks; sizes do not count."""
        values = axes_of(config, inputs, self.takes)
        for each in self.claims:
            if each.permits(values):
                return each, []
        lacking = [(each, each.refusals(config, inputs, self.takes)) for each in self.claims]
        return min(lacking, key=lambda pair: len(pair[1]), default=(None, ["any claim"]))

    def admits(self, config: RouterConfig, inputs: RouterInputs) -> bool:
        """Return whether the call is claimed."""
        if self._outside(config, inputs):
            return False
        values = axes_of(config, inputs, self.takes)
        return any(claim.permits(values) for claim in self.claims)

    def narrowed(self, **axes: tuple[Any, ...]) -> Capabilities:
        """Return these capabilities with only what is claimed of ``axes``; may claim nothing.

        Each axis lists the values wanted; ``groups=(True,)`` stands for any claimed rule.
        """
        claims = (claim.narrowed(axes) for claim in self.claims)
        kept = (claim for claim in claims if claim is not None and self._can_be_given(claim))
        return replace(self, claims=tuple(kept))

    def _can_be_given(self, claim: Claim) -> bool:
        """Whether any call of a claim is within the limits and comes with what is taken."""
        room = self.limits.has_room(claim.top_k, grouped=None not in claim.groups)
        return room and not self._too_late_for(claim)

    def _too_late_for(self, claim: Claim) -> bool:
        """Whether a claim is about an input norm alone, and the backend takes logits."""
        return self.takes == "logits" and False not in claim.input_norm

    def storage_refusals(
        self, inputs: RouterInputs | SharedExpertInputs | ExpertsInputs
    ) -> list[str]:
        """Return what is not claimed of how inputs of any call are stored, one phrase each."""
        refused = [] if inputs.dtype in self.dtypes else [f"dtype={inputs.dtype!r}"]
        return refused + self.layout_refusals(inputs)

    def layout_refusals(
        self, inputs: RouterInputs | SharedExpertInputs | ExpertsInputs
    ) -> list[str]:
        """Return the first array that does not lie in memory as is claimed, as a phrase, or none.

        As NumPy and torch have it, an array with nothing to tell strides by lies in rows.
        """
        if "strided" in self.layouts:  # an array in rows is a strided array as well
            return []
        for name, array in inputs.arrays().items():
            if not array.flags.c_contiguous:
                steps = tuple(step // array.itemsize for step in array.strides)
                return [f"{name} strided by {steps} (layouts={self.layouts})"]
        return []

    def _outside(self, config: RouterConfig, inputs: RouterInputs) -> list[str]:
        outside = self.limits.refusals(config, inputs) + self.storage_refusals(inputs)
        if self.takes == "logits" and inputs.logits is None:
            outside.append("hidden states (takes logits)")
        return outside
