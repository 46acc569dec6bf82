"""The routers of the transformers package, one adapter each; what differs is a table.

Each adapter is an attribute of this module, by the name of its row: a function that makes it.
"""

from functools import partial

from moe_routing.implementations.transformers.adapter import TransformersRouter
from moe_routing.implementations.transformers.layers import LAYERS, TransformersLayer
from moe_routing.implementations.transformers.table import MEMBERS, OUT_OF_SCOPE, ROWS

__all__ = ["MEMBERS", "OUT_OF_SCOPE", "TransformersLayer", "TransformersRouter"]


def __getattr__(name: str) -> partial[TransformersRouter]:
    if name not in ROWS:
        raise AttributeError(f"the table has no row {name!r}")
    makes = TransformersLayer if name in LAYERS else TransformersRouter
    return partial(makes, ROWS[name])
