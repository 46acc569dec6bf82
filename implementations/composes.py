"""What a backend with a method ``layer`` claims of its shared expert."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moe_routing.implementations.computes import Computes
from moe_routing.implementations.permitted import Closed, check_values, one_of
from moe_routing.reference import ExpertsInputs, LayerConfig, LayerInputs
from moe_routing.reference.shared_experts import SHARED_KINDS

_EITHER = (False, True)


@dataclass(frozen=True, kw_only=True)
class Composes(Closed):
    """The shared experts that a layer may have; without arguments all of them.

    ``shared`` lists the kinds of ``SharedExpertConfig``, ``none`` for a layer without one;
    ``gated`` whether the shared expert has a gate. What its router and its routed experts are is
    claimed by ``claims``, ``limits`` and ``computes``. Errors: ``ValueError`` naming the field.
    """

    shared: tuple[str, ...] = SHARED_KINDS
    gated: tuple[bool, ...] = _EITHER

    def __post_init__(self) -> None:
        for axis, values in (("shared", SHARED_KINDS), ("gated", _EITHER)):
            name = f"Composes.{axis}"
            check_values(name, getattr(self, axis), one_of(name, values), repr(values))

    def refusals(self, config: LayerConfig, inputs: LayerInputs, computes: Computes) -> list[str]:
        """Return what is not claimed of a call's experts, routed and shared, a phrase each."""
        found = computes.refusals(config.experts, _routed(config, inputs))
        kind, gated = config.shared.kind, config.shared.gated
        if kind not in self.shared:
            found.append(f"shared.kind={kind!r}")
        if kind != "none" and gated not in self.gated:
            found.append(f"shared.gated={gated!r}")
        return found


def _routed(config: LayerConfig, inputs: LayerInputs) -> ExpertsInputs:
    """Return a call of the experts on distinct routes, as far as there are any."""
    experts, top_k = config.router.num_experts, config.router.top_k
    ids = np.broadcast_to(np.arange(top_k) % experts, (inputs.num_tokens, top_k))
    return inputs.experts_at(ids, np.zeros(ids.shape, np.float32))
