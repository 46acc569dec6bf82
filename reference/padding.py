"""Padding: tokens of a batch that are none, which are routed to nobody (docs/spec/padding.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from moe_routing.reference.arrays import convert
from moe_routing.reference.checks import require_choice, shown
from moe_routing.reference.config import RouterConfig
from moe_routing.reference.formats import Bools
from moe_routing.reference.inputs import RouterInputs
from moe_routing.reference.routes import ABSENT
from moe_routing.reference.routing import Routing, route

Told = Literal["count", "valid", "padding"]
TOLD: tuple[str, ...] = get_args(Told)

Sentinel = Literal["minus-one", "num-experts"]
SENTINELS: tuple[str, ...] = get_args(Sentinel)


@dataclass(frozen=True, kw_only=True, eq=False)
class Padding:
    """Which tokens of a batch are padding, and how a backend is told.

    ``real [T]`` is 1 for a token and 0 for padding. ``told`` is ``count`` (``value`` is then the
    number of tokens before the padding, ``num_token_non_padded``: padding comes last), ``valid``
    (a mask, True for a token) or ``padding`` (a mask, True for padding). Errors: ``ValueError``.
    """

    real: npt.NDArray[np.int64]
    told: Told = "valid"

    def __post_init__(self) -> None:
        require_choice("told", self.told, TOLD)
        real = convert("real", self.real, np.int64)
        if real.ndim != 1 or ((real != 0) & (real != 1)).any():
            raise ValueError(
                f"Expected real to be 0 or 1 for each token but got {shown(self.real)}"
            )
        if self.told == "count" and (np.diff(real) > 0).any():
            t = int(np.argmax(np.diff(real) > 0)) + 1
            raise ValueError(
                f"Cannot have token {t} after padding with told='count': a count says how many "
                "tokens come before all padding"
            )
        object.__setattr__(self, "real", real)

    @property
    def valid(self) -> Bools:
        """Which tokens are none of padding, ``[T]``."""
        return np.asarray(self.real == 1)

    @property
    def value(self) -> int | Bools:
        """What a backend is given: a number, or a mask ``[T]``."""
        if self.told == "count":
            return int(self.real.sum())
        return self.valid if self.told == "valid" else ~self.valid


def sentinel_of(sentinel: str, num_experts: int) -> int:
    """Return the id that stands for no expert."""
    return ABSENT if sentinel == "minus-one" else num_experts


def route_padded(
    config: RouterConfig,
    inputs: RouterInputs,
    padding: Padding,
    sentinel: Sentinel = "minus-one",
) -> Routing:
    """Route the tokens; padding gets the sentinel in every slot, with weights of 0.

    Errors: ``ValueError`` where the arguments do not fit one another.
    """
    if len(padding.real) != inputs.num_tokens:
        raise ValueError(
            f"Expected real of shape [{inputs.num_tokens}] for as many tokens but got "
            f"{padding.real.shape}"
        )
    found, lost = route(config, inputs), ~padding.valid[:, None]
    nobody: Any = sentinel_of(sentinel, config.num_experts)
    return Routing(
        weights=np.where(lost, 0.0, found.weights),
        expert_ids=np.where(lost, nobody, found.expert_ids),
        logits=found.logits,
    )
