"""The table of mlx-lm's routers: one row a model file, or the reason why there is none."""

from __future__ import annotations

from moe_routing.implementations.mlx_lm import sigmoid, softmax

ROWS = (*softmax.ROWS, *sigmoid.ROWS)

OUT_OF_SCOPE: dict[str, str] = {
    "Klear": "its block weighs the sum of its experts against the shared one",
    "muse_spark": "its router is a Metal kernel, which runs on Apple GPUs alone",
    "dbrx": "its experts are called token by token, with their ids taken to Python first",
    "llama4": "its block weighs what goes into its experts, not what comes out of them",
}
"""The routers without an adapter, and why."""
