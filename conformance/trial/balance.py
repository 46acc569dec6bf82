"""The trial of a balance, and the boundary that it comes through."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from moe_routing.conformance.calls.balance import BalanceCase
from moe_routing.conformance.judge.balance import Owed
from moe_routing.conformance.trial.base import BaseTrial
from moe_routing.conformance.trial.boundary import Malformed, to_numpy
from moe_routing.implementations.balances import BALANCE_PARTS, Balance

_SHAPES = {"counts": "LE", "aux_loss": "", "aux_gradient": "LTE", "z_loss": "", "bias": "LE"}


@dataclass(frozen=True, eq=False)
class BalanceTrial(BaseTrial[BalanceCase]):
    """One call of ``balance`` for one adapter."""

    method: str = "balance"

    @property
    def owed(self) -> Owed:
        """What follows from the inputs."""
        return self.once(owed_of)

    @property
    def facts(self) -> Owed:
        """The value that events are read from."""
        return self.owed

    @cached_property
    def received(self) -> dict[str, Any]:
        """The parts of the answer as NumPy arrays, by name. Errors: ``Raised``, ``Malformed``."""
        return read(self.native, self.case)

    def part_named(self, name: str) -> Any:
        """Return a part of the answer that is claimed. Errors: ``Malformed`` where it is None."""
        if name not in self.received:
            raise Malformed(f"{name} is None, but Balances.of claims it")
        return self.received[name]


def owed_of(case: BalanceCase) -> Owed:
    """Return what follows from the inputs of a case."""
    return Owed(case.config, case.inputs)


def read(raw: object, case: BalanceCase) -> dict[str, Any]:
    """Read a native answer. Errors: ``Malformed``, in one line."""
    if not isinstance(raw, Balance):
        kind = "None" if raw is None else f"a {type(raw).__name__}"
        raise Malformed(f"balance returned {kind}, but should return Balance")
    found = {}
    for name in BALANCE_PARTS:
        value = getattr(raw, name)
        if value is None:
            continue
        array = to_numpy(name, value)
        shape = tuple(case.sizes[letter] for letter in _SHAPES[name])
        if array.dtype.kind not in ("iuf" if name == "counts" else "f"):
            raise Malformed(f"{name} is of dtype {array.dtype}, but should hold numbers")
        if array.shape != shape:
            raise Malformed(f"{name} has shape {array.shape}, but should be {shape}")
        found[name] = array.astype(np.float64)
    return found
