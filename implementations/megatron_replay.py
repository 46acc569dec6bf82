"""Megatron-Core's ``RouterReplay``, one for each recorded layer, as its trainer has them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from moe_routing.implementations.megatron_modules import core_module
from moe_routing.implementations.replays import Replays
from moe_routing.reference import Recorded

REPLAYS = Replays(weights=(False,), absent=(False,), repeats=(False,))
"""Ids alone, of which each is there; an answer is a map, which cannot hold an expert twice."""


@contextmanager
def replaying(recorded: Recorded, device: str = "cpu") -> Iterator[Any]:
    """Set the record of all layers, and yield the ``RouterReplay`` of the one that is called.

    ``topk_routing_with_score_function`` gathers with what it is given: int64, every id in range.
    """
    import torch

    module = core_module("transformer.moe.router_replay")
    held = module.RouterReplay
    before = list(held.global_router_replay_instances)
    held.clear_global_router_replay_instances()
    try:
        layers = [held() for _ in range(recorded.num_layers)]
        ids = [replace(recorded, layer=number).ids for number in range(recorded.num_layers)]
        held.set_replay_data([torch.from_numpy(np.array(each)).to(device) for each in ids])
        held.set_global_router_replay_action(module.RouterReplayAction.REPLAY_FORWARD)
        yield layers[recorded.layer or 0]
    finally:
        held.global_router_replay_instances[:] = before
