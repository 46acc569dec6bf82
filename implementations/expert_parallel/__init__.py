"""Layers spread over ranks as libraries have them, an adapter each, for ``--ranks``.

``ep:all_to_all`` and ``ep:all_reduce`` are transformers', around the experts function that follows
``@``, or the eager one; ``ep:torchtitan`` and ``ep:megatron_allgather`` are those libraries' own.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from moe_routing.implementations.expert_parallel.implementations import (
    FUNCTIONS,
    IMPLEMENTATIONS,
    ExpertParallel,
)
from moe_routing.implementations.expert_parallel.megatron_rank import MegatronRank
from moe_routing.implementations.expert_parallel.torchtitan_rank import TorchtitanRank

_OWN = {"torchtitan": TorchtitanRank, "megatron_allgather": MegatronRank}

MEMBERS = (
    *_OWN,
    *(
        name if function == "eager" else f"{name}@{function}"
        for name in IMPLEMENTATIONS
        for function in FUNCTIONS
    ),
)
"""The names of the adapters."""

OUT_OF_SCOPE = {
    "megatron_alltoall": "Megatron's all-to-all dispatcher makes a CUDA stream as it is built: it "
    "needs GPUs, where this was not tried",
    "axolotl": "axolotl's expert_parallel sends tokens through DeepEP, which needs GPUs and is on "
    "no package index",
}
"""Why there is no adapter for some others."""


def __getattr__(name: str) -> Any:
    if name in _OWN:
        return _OWN[name]
    if name in MEMBERS:
        implementation, _, function = name.partition("@")
        return partial(ExpertParallel, implementation, function or "eager")
    raise AttributeError(f"there is no {name}")
