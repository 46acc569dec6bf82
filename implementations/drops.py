"""What a backend with a method ``drop`` claims of it: rules of the capacity, and sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from moe_routing.implementations.permitted import (
    ANY,
    AnyValue,
    Closed,
    check_values,
    counts,
    one_of,
)
from moe_routing.implementations.unsupported import Unsupported
from moe_routing.reference import CapacityConfig, Routes
from moe_routing.reference.capacity import CAPACITY_WORDS
from moe_routing.reference.checks import require_count, require_real

SUMS = ("any", "one")
_EITHER = (False, True)
_KNOWN: dict[str, tuple[Any, ...]] = {**CAPACITY_WORDS, "absent": _EITHER, "sums": SUMS}


@dataclass(frozen=True, kw_only=True)
class Drops(Closed):
    """The drops that a backend makes; without arguments all of them.

    ``factor``, ``minimum`` and ``top_k`` list values, or are ``ANY``. ``share``, ``rounding``,
    ``zero``, ``order`` and ``survivors`` list words of ``CapacityConfig``. ``absent`` says whether
    routes may be absent, and ``sums`` what the weights of a token sum to: exactly ``one``, or
    ``any`` number. ``max_experts`` and ``max_tokens`` are the sizes that it stops at. Errors:
    ``ValueError`` naming the field.
    """

    factor: tuple[float, ...] | AnyValue = ANY
    share: tuple[str, ...] = CAPACITY_WORDS["share"]
    rounding: tuple[str, ...] = CAPACITY_WORDS["rounding"]
    minimum: tuple[int, ...] | AnyValue = ANY
    zero: tuple[str, ...] = CAPACITY_WORDS["zero"]
    order: tuple[str, ...] = CAPACITY_WORDS["order"]
    survivors: tuple[str, ...] = CAPACITY_WORDS["survivors"]
    top_k: tuple[int, ...] | range | AnyValue = ANY
    absent: tuple[bool, ...] = _EITHER
    sums: tuple[str, ...] = SUMS
    max_experts: int | None = None
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        known = (tuple, AnyValue)
        check_values("Drops.factor", self.factor, _numbers, "(1.0, 1.25)", known)
        check_values("Drops.minimum", self.minimum, _minimums, "(0, 4)", known)
        name = "Drops.top_k"
        check_values(name, self.top_k, counts(name), "(1, 2)", (*known, range))
        for axis, values in _KNOWN.items():
            name = f"Drops.{axis}"
            check_values(name, getattr(self, axis), one_of(name, values), repr(values))
        for axis, least in (("absent", False), ("sums", "one")):
            if least not in getattr(self, axis):
                raise ValueError(
                    f"Expected Drops.{axis} to list {least!r} but got {getattr(self, axis)}: "
                    "calls of that kind are always claimed"
                )
        for name, value in vars(self).items():
            if name.startswith("max_") and value is not None:
                require_count(f"Drops.{name}", value, at_least=1)

    def refusals(self, config: CapacityConfig, routes: Routes) -> list[str]:
        """Return what is not claimed of a call, one phrase each; empty: claimed."""
        values = {
            **{name: getattr(config, name) for name in ("factor", "minimum", *CAPACITY_WORDS)},
            "top_k": routes.top_k,
            "absent": bool((~routes.present).any()),
            "sums": sums_of(routes),
        }
        found = [f"{n}={v!r}" for n, v in values.items() if v not in getattr(self, n)]
        sizes = (
            ("num_experts", config.num_experts, self.max_experts),
            ("num_tokens", routes.num_tokens, self.max_tokens),
        )
        return found + [f"{name}={n} > {most}" for name, n, most in sizes if most and n > most]

    def require(self, config: CapacityConfig, routes: Routes) -> None:
        """Raise ``Unsupported`` for a call that is not claimed, saying why not."""
        if refused := self.refusals(config, routes):
            raise Unsupported(f"not claimed: {', '.join(refused)}")


def sums_of(routes: Routes) -> str:
    """Return ``one`` where the weights of each token with routes sum to exactly 1, or ``any``."""
    sums = routes.weights.astype(np.float64).sum(axis=1)
    there = routes.present.reshape(routes.expert_ids.shape).any(axis=1)
    return "one" if (sums[there] == 1.0).all() else "any"


def _numbers(values: Any) -> None:
    for each in values:
        require_real("each value of Drops.factor", each, at_least=0.0)


def _minimums(values: Any) -> None:
    for each in values:
        require_count("each value of Drops.minimum", each, at_least=0)
