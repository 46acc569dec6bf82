"""What a backend with a method ``replay`` claims of it: the records that it can be given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from moe_routing.implementations.permitted import Closed, check_values, one_of
from moe_routing.implementations.unsupported import Unsupported
from moe_routing.reference import Recorded, RouterConfig
from moe_routing.reference.checks import require_flag
from moe_routing.reference.formats import Ids

_EITHER = (False, True)


def repeats(ids: Ids) -> bool:
    """Return whether an expert holds several slots of a token; -1 is none."""
    ordered = np.sort(ids, axis=1)
    return bool(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any())


def _read(recorded: Recorded, of: Callable[[Ids], bool]) -> bool:
    return recorded.layer is not None and of(recorded.ids)


RECORD_AXES: dict[str, Callable[[Recorded], bool]] = {
    "weights": lambda recorded: recorded.weights is not None,
    "absent": lambda recorded: _read(recorded, lambda ids: bool((ids < 0).any())),
    "repeats": lambda recorded: _read(recorded, repeats),
    "rows": lambda recorded: recorded.rows is not None,
    "layers": lambda recorded: recorded.num_layers > 1,
    "unrecorded": lambda recorded: recorded.layer is None,
    "strided": lambda recorded: not recorded.expert_ids.flags.c_contiguous,
}
"""What may be claimed of a record, and how it is read; also what a known divergence may name."""


@dataclass(frozen=True, kw_only=True)
class Replays(Closed):
    """The records that a backend replays; without arguments all of them.

    Each axis lists whether calls may have it: ``weights``, recorded ones, which are then forced
    as well; ``absent`` routes; ``repeats`` of an expert in a token; ``rows``, which say what row
    of the record each token has, with none for padding; several ``layers``; a layer that is
    ``unrecorded``, and routes by itself; a ``strided`` record, whose tokens do not lie next to one
    another. ``masked`` is about the router: weights from masked scores, of which a replay reads no
    mask. ``same_bits``: its own record gives its own weights, bit for bit; without it, up to
    rounding. Which routers are replayed is what the claims say. Errors: ``ValueError`` naming the
    field.
    """

    weights: tuple[bool, ...] = _EITHER
    absent: tuple[bool, ...] = _EITHER
    repeats: tuple[bool, ...] = _EITHER
    rows: tuple[bool, ...] = _EITHER
    layers: tuple[bool, ...] = _EITHER
    unrecorded: tuple[bool, ...] = _EITHER
    strided: tuple[bool, ...] = _EITHER
    masked: tuple[bool, ...] = _EITHER
    same_bits: bool = True

    def __post_init__(self) -> None:
        require_flag("Replays.same_bits", self.same_bits)
        for axis in (*RECORD_AXES, "masked"):
            name, values = f"Replays.{axis}", getattr(self, axis)
            check_values(name, values, one_of(name, _EITHER), repr(_EITHER))
            if False not in values:
                raise ValueError(
                    f"Expected {name} to list False but got {values}: calls without are always "
                    "claimed"
                )

    def refusals(self, config: RouterConfig, recorded: Recorded) -> list[str]:
        """Return what is not claimed of a call, one phrase each; empty: claimed."""
        values: dict[str, Any] = {name: read(recorded) for name, read in RECORD_AXES.items()}
        values["masked"] = config.weights_from == "masked_scores"
        return [f"replays.{n}={v}" for n, v in values.items() if v not in getattr(self, n)]

    def require(self, config: RouterConfig, recorded: Recorded) -> None:
        """Raise ``Unsupported`` for a record that is not claimed, saying why not."""
        if refused := self.refusals(config, recorded):
            raise Unsupported(f"not claimed: {', '.join(refused)}")
