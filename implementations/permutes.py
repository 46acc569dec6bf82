"""What a backend with a method ``permute`` claims of it: options, routes and sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moe_routing.implementations.permitted import (
    ANY,
    AnyValue,
    Closed,
    check_values,
    counts,
    one_of,
)
from moe_routing.implementations.unsupported import Unsupported
from moe_routing.reference import PermutationConfig, Routes
from moe_routing.reference.checks import require_count
from moe_routing.reference.permutation import ORDERS
from moe_routing.reference.permutation_maps import has_repeats

EMPTY_TAKES = ("nothing", "align")
ROUTES_AXES: dict[str, Callable[[Any], bool]] = {
    "absent": lambda inputs: bool((inputs.expert_ids < 0).any()),
}
"""What a region of a known divergence may name of the routes in inputs, and how it is read."""

_EITHER = (False, True)
_KNOWN: dict[str, tuple[Any, ...]] = {
    "empty_takes": EMPTY_TAKES,
    "order": ORDERS,
    "absent": _EITHER,
    "repeats": _EITHER,
}


@dataclass(frozen=True, kw_only=True)
class Permutes(Closed):
    """The permutations that a backend makes; without arguments all of them.

    Each axis lists its permitted values: ``align`` the alignments (``ANY``: all),
    ``empty_takes`` what an expert without routes takes, ``nothing`` or ``align``; ``order``
    what it promises inside an expert, ``stable`` or ``free``. ``absent`` and ``repeats`` say
    whether routes may be absent, and whether an expert may hold several slots of a token.
    ``max_experts``, ``max_tokens``, ``max_top_k`` and ``max_routes`` are the sizes that it
    stops at. Errors: ``ValueError`` naming the field.
    """

    align: tuple[int, ...] | AnyValue = ANY
    empty_takes: tuple[str, ...] = EMPTY_TAKES
    order: tuple[str, ...] = ORDERS
    absent: tuple[bool, ...] = _EITHER
    repeats: tuple[bool, ...] = _EITHER
    max_experts: int | None = None
    max_tokens: int | None = None
    max_top_k: int | None = None
    max_routes: int | None = None

    def __post_init__(self) -> None:
        align, known = "Permutes.align", (tuple, AnyValue)
        check_values(align, self.align, counts(align), "(1, 16, 128)", known)
        for axis, values in _KNOWN.items():
            name = f"Permutes.{axis}"
            check_values(name, getattr(self, axis), one_of(name, values), repr(values))
        for axis in ("absent", "repeats"):
            if False not in getattr(self, axis):
                raise ValueError(
                    f"Expected Permutes.{axis} to list False but got {getattr(self, axis)}: "
                    "calls without any are always claimed"
                )
        for name, value in vars(self).items():
            if name.startswith("max_") and value is not None:
                require_count(f"Permutes.{name}", value, at_least=1)

    def refusals(self, config: PermutationConfig, routes: Routes) -> list[str]:
        """Return what is not claimed of a call, one phrase each; empty: claimed."""
        values = {
            "align": config.align,
            "empty_takes": EMPTY_TAKES[config.empty_takes > 0],
            "order": config.order,
            "absent": bool((~routes.present).any()),
            "repeats": has_repeats(routes),
        }
        found = [f"{n}={v!r}" for n, v in values.items() if v not in getattr(self, n)]
        sizes = (
            ("num_experts", config.num_experts, self.max_experts),
            ("num_tokens", routes.num_tokens, self.max_tokens),
            ("top_k", routes.top_k, self.max_top_k),
            ("routes", routes.num_routes, self.max_routes),
        )
        return found + [f"{name}={n} > {most}" for name, n, most in sizes if most and n > most]

    def require(self, config: PermutationConfig, routes: Routes) -> None:
        """Raise ``Unsupported`` for a call that is not claimed, saying why not."""
        if refused := self.refusals(config, routes):
            raise Unsupported(f"not claimed: {', '.join(refused)}")
