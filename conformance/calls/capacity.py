"""A case of capacity: routes, some of which an expert may have no room for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moe_routing.conformance.calls.routes import RoutesCase
from moe_routing.reference import CapacityConfig


@dataclass(frozen=True, kw_only=True, eq=False)
class CapacityCase(RoutesCase):
    """A call of ``drop`` to check against the rule that is claimed."""

    kind: ClassVar[str] = "capacity"

    config: CapacityConfig
