"""Honest variants that promise more than they must, and keep it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.residents import WHOLE, honest
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.layouts import routing_map
from moe_routing.conformance.zoo.router.stages import answer, gate_input_of, gate_logits
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.implementations import Capabilities, Claim, Promises, RoutingMap
from moe_routing.reference import Routing

_ALL = Promises(ties="lowest", slots="descending", same_bits=True, served_by=("by-rows",))


def _row_by_row(x: Array, matrix: Array) -> Array:
    """Return ``x matrix^T``, each row by the same product of a matrix and a vector."""
    rows = np.empty((len(x), len(matrix)), np.float32)
    for t, row in enumerate(np.ascontiguousarray(x)):
        rows[t] = matrix @ row
    return rows


@honest(
    "promises-that-are-kept",
    *("gate_input", "logits", "answer"),
    claims=replace(WHOLE, promises=_ALL),
)
def _(w: Work, stage: str) -> Any:
    """Ties to the lower id, sorted slots, rows that nothing but themselves decides, one kernel."""
    if stage == "gate_input":  # NumPy adds up a strided row in another order than one that is alone
        return gate_input_of(w, np.ascontiguousarray(w.hidden))
    if stage == "logits":
        return gate_logits(w, _row_by_row)
    plain: Routing = answer(w)
    return replace(plain, kernel="by-rows")


@honest(
    "promises-of-a-map",
    "answer",
    claims=Capabilities(
        claims=(Claim(expert_table=(False,)),),
        promises=Promises(ties="lowest", slots="descending"),
    ),
)
def _(w: Work) -> RoutingMap:
    """A map has no slots whose order could be wrong, and ties as any layout has."""
    return routing_map(w)
