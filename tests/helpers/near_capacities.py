"""Near misses of the events of capacities: all is there but the one thing."""

from __future__ import annotations

from typing import Any

from moe_routing.conformance.calls.capacity import CapacityCase
from moe_routing.conformance.events.capacity import FIRSTS, OVER
from moe_routing.conformance.generators.capacity import case_of
from moe_routing.reference import CapacityConfig


def dropped(ids: Any, experts: int = 4, **options: Any) -> CapacityCase:
    """Return the case of these experts."""
    return case_of(CapacityConfig(num_experts=experts, **{"factor": 0.5, **options}), ids)


NEAR_CAPACITIES: dict[str, CapacityCase] = {
    "dropped-some-over": dropped(OVER, factor=4.0),
    "dropped-one-over": dropped(((0, 1), (0, 2), (0, 1), (0, 3)), factor=1.0),
    "dropped-exactly-full": dropped(((0, 1), (2, 0), (3, 1), (0, 2), (0, 3)), factor=1.0),
    "dropped-fraction": dropped(OVER[:4], factor=0.5),
    "dropped-minimum-at-stake": dropped(OVER, factor=1.0, minimum=2),
    "dropped-slots-at-stake": dropped(OVER, share="tokens"),
    "dropped-tokens-at-stake": dropped(OVER, share="routes"),
    "dropped-by-token": dropped(OVER, order="weight"),
    "dropped-first-tokens-stay": dropped(OVER, factor=0.0),
    "dropped-by-slot": dropped(FIRSTS, order="token"),
    "dropped-by-weight": dropped(OVER, order="token"),
    "dropped-second-slots-overflow": dropped(((0, 1), (0, 2), (0, 3), (0, 1))),
    "dropped-part-of-a-token": dropped(OVER, survivors="rescaled"),
    "dropped-part-rescaled": dropped(OVER, survivors="normalized"),
    "dropped-part-normalized": dropped(OVER, survivors="rescaled"),
    "dropped-whole-token": dropped(((0, 1), (0, 2), (0, 3))),
    "dropped-absent-beside-overflow": dropped(((0, 1), (-1, -1), (2, 3))),
    "dropped-nothing-over": dropped(((0,), (0,)), factor=4.0),
    "dropped-one-busy-expert": dropped(((0,), (0,), (0,)), experts=1),
    "dropped-all-over": dropped(OVER, factor=0.0),
    "dropped-larger-than-batch": dropped(((0, 1), (1, 0), (0, 2)), factor=2.0),
    "dropped-minimum-above-batch": dropped(((0, 1), (1, 0), (0, 2)), minimum=3),
    "dropped-zero": dropped(OVER, factor=0.0, zero="unlimited"),
    "dropped-zero-with-minimum": dropped(OVER, factor=0.0, minimum=6),
    "dropped-zero-unlimited": dropped(OVER, factor=0.0),
}
"""A case for each event that stands alone, which does not show it."""
