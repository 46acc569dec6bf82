"""The routers of mlx-lm, one adapter each; what differs is a table."""

from __future__ import annotations

from moe_routing.implementations.functions import FunctionRouter
from moe_routing.implementations.mlx_lm.blocks import FAMILY
from moe_routing.implementations.mlx_lm.table import OUT_OF_SCOPE, ROWS

for _row in ROWS:
    _row.add_to(FAMILY)

MEMBERS = FAMILY.members

__all__ = ["MEMBERS", "OUT_OF_SCOPE"]


def __getattr__(name: str) -> FunctionRouter:
    return FAMILY.made(name)  # type: ignore[return-value]
