"""What a backend with a method ``balance`` claims of it, and the form of its answer."""

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
from moe_routing.reference.balance import BALANCE_WORDS, BalanceConfig, BalanceInputs
from moe_routing.reference.checks import require_count

BALANCE_PARTS = ("counts", "aux_loss", "aux_gradient", "z_loss", "bias")
"""The fields of ``Balance``."""

IDS = ("any", "top_k")
_EITHER = (False, True)
_KNOWN: dict[str, tuple[Any, ...]] = {
    "of": BALANCE_PARTS,
    **BALANCE_WORDS,
    "padded": _EITHER,
    "absent": _EITHER,
    "ids": IDS,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Balance:
    """What a step says of its experts' balance: native values, None where there is none.

    Shapes: ``counts [L, E]``, ``aux_loss []``, ``aux_gradient [L, T, E]`` (by the logits),
    ``z_loss []``, ``bias [L, E]``, as it is after the step.
    """

    counts: Any = None
    aux_loss: Any = None
    aux_gradient: Any = None
    z_loss: Any = None
    bias: Any = None


@dataclass(frozen=True, kw_only=True)
class Balances(Closed):
    """What a backend counts, loses and updates; without arguments all of it.

    ``of`` names fields of ``Balance``; the others list words of ``BalanceConfig``. ``padded`` says
    whether tokens may be padding, ``absent`` whether routes may be absent, and ``ids`` whether the
    experts may be ``any``, or are always the ``top_k`` of the logits, which some libraries choose
    again. ``max_layers``, ``max_experts`` and ``max_tokens`` are the sizes that it stops at.
    Errors: ``ValueError`` naming the field.
    """

    of: tuple[str, ...] = BALANCE_PARTS
    score: tuple[str, ...] = BALANCE_WORDS["score"]
    at_balance: tuple[str, ...] = BALANCE_WORDS["at_balance"]
    counted: tuple[str, ...] = BALANCE_WORDS["counted"]
    over_layers: tuple[str, ...] = BALANCE_WORDS["over_layers"]
    update: tuple[str, ...] = BALANCE_WORDS["update"]
    mode: tuple[str, ...] = BALANCE_WORDS["mode"]
    padded: tuple[bool, ...] = _EITHER
    absent: tuple[bool, ...] = _EITHER
    ids: tuple[str, ...] = IDS
    top_k: tuple[int, ...] | range | AnyValue = ANY
    max_layers: int | None = None
    max_experts: int | None = None
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        name = "Balances.top_k"
        check_values(name, self.top_k, counts(name), "(1, 2)", (tuple, AnyValue, range))
        for axis, values in _KNOWN.items():
            name = f"Balances.{axis}"
            check_values(name, getattr(self, axis), one_of(name, values), repr(values))
        for axis, least in (("padded", False), ("absent", False), ("ids", "top_k")):
            if least not in getattr(self, axis):
                raise ValueError(
                    f"Expected Balances.{axis} to list {least!r} but got {getattr(self, axis)}: "
                    "calls of that kind are always claimed"
                )
        for name, value in vars(self).items():
            if name.startswith("max_") and value is not None:
                require_count(f"Balances.{name}", value, at_least=1)

    def refusals(self, config: BalanceConfig, inputs: BalanceInputs) -> list[str]:
        """Return what is not claimed of a call, one phrase each; empty: claimed."""
        values = {
            **{name: getattr(config, name) for name in BALANCE_WORDS},
            "padded": inputs.num_valid < inputs.num_tokens,
            "absent": bool((inputs.expert_ids < 0).any()),
            "ids": ids_of(inputs),
            "top_k": inputs.top_k,
        }
        found = [f"{n}={v!r}" for n, v in values.items() if v not in getattr(self, n)]
        sizes = (
            ("num_layers", inputs.num_layers, self.max_layers),
            ("num_experts", config.num_experts, self.max_experts),
            ("num_tokens", inputs.num_tokens, self.max_tokens),
        )
        return found + [f"{name}={n} > {most}" for name, n, most in sizes if most and n > most]

    def require(self, config: BalanceConfig, inputs: BalanceInputs) -> None:
        """Raise ``Unsupported`` for a call that is not claimed, saying why not."""
        if refused := self.refusals(config, inputs):
            raise Unsupported(f"not claimed: {', '.join(refused)}")


def ids_of(inputs: BalanceInputs) -> str:
    """Return ``top_k`` where every token has the K greatest logits, in falling order, no ties."""
    ids, top_k = inputs.expert_ids, inputs.top_k
    if (ids < 0).any():
        return "any"
    chosen = np.take_along_axis(inputs.logits, ids, axis=2)
    falls = bool((chosen[:, :, 1:] < chosen[:, :, :-1]).all())
    ordered = -np.sort(-inputs.logits, axis=2)
    best = bool((chosen == ordered[:, :, :top_k]).all())
    apart = bool((ordered[:, :, top_k - 1 : top_k] > ordered[:, :, top_k : top_k + 1]).all())
    return "top_k" if falls and best and apart else "any"
