"""The zoo's sharder: one rank's part of a layer in NumPy, made of stages that can be replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.runner import RunnerWork
from moe_routing.conformance.zoo.router.staged import StagedAdapter
from moe_routing.reference import ExpertsConfig, ExpertsInputs, Placement
from moe_routing.reference.experts import OF_EXPERTS


class SharderWork:
    """One call of a rank in progress: a stage's value is computed when it is first read.

    ``config``, ``inputs``, ``placement`` and ``rank`` are the call's, ``memory`` what is stored
    between calls, and ``own`` the stages that the sharder has in place of the right ones. With L
    experts on the rank: ``held [L]`` (the experts, by number over all ranks), ``number [E + 1]``
    (the local number of each, -1 elsewhere, the last for absent routes), ``turn [T, K]`` (whether
    it is this rank's turn among the replicas of a route), ``ids [T, K]`` (local), ``matrices`` (by
    name, each ``[L, ...]``), ``part [T, H]``, ``answer``.
    """

    held: Array
    number: Array
    turn: Array
    ids: Array
    matrices: Mapping[str, Array]
    part: Array
    answer: Any

    def __init__(
        self,
        own: Mapping[str, SharderStage],
        call: tuple[ExpertsConfig, ExpertsInputs, Placement, int],
        memory: dict[Any, Any],
    ) -> None:
        self._own, self.memory = own, memory
        self.config, self.inputs, self.placement, self.rank = call

    def __getattr__(self, stage: str) -> Any:
        if stage not in SHARDING:
            raise AttributeError(f"a sharder has no stage {stage!r}")
        value = (self._own.get(stage) or SHARDING[stage])(self)
        vars(self)[stage] = value
        return value

    @property
    def ranks(self) -> int:
        """The number of ranks."""
        return self.placement.num_ranks

    def right(self, stage: str) -> Any:
        """Return what the right stage makes."""
        return SHARDING[stage](self)


SharderStage = Callable[[SharderWork], Any]


class StagedSharder(StagedAdapter):
    """An adapter that only runs the experts of ranks; its answer is the last of its stages."""

    def shard(
        self, config: ExpertsConfig, inputs: ExpertsInputs, placement: Placement, rank: int
    ) -> Any:
        """Return the stage ``answer``. Errors: ``Unsupported``."""
        self._capabilities.computes.require(config, inputs)
        self._capabilities.shards.require(placement)
        call = config, inputs, placement, rank
        return SharderWork(self._stages, call, self.memory).answer


def numbered(held: Array, experts: int) -> Array:
    """Return the place of each expert in ``held``, -1 for others and for absent routes."""
    number = np.full(experts + 1, -1)
    number[held] = np.arange(len(held))
    return number


def in_turn(w: SharderWork) -> Array:
    """Return whether it is the rank's turn: the replicas of an expert take tokens in turn."""
    ids, turn = w.inputs.expert_ids, np.zeros(w.inputs.expert_ids.shape, bool)
    for expert in np.unique(ids[ids >= 0]):
        homes = w.placement.rank_of[w.placement.logical_of == expert]
        tokens, slots = np.nonzero(ids == expert)
        turn[tokens, slots] = homes[tokens % homes.size] == w.rank
    return turn


def run(w: SharderWork) -> Array:
    """Return what local experts make of the tokens, as the zoo's runner makes it."""
    if not len(w.held):
        return np.zeros(w.inputs.hidden.shape, np.float32)
    weights = np.where(w.ids < 0, np.float32(0), w.inputs.weights)
    matrices: dict[str, Any] = dict(w.matrices)
    local = replace(w.inputs, expert_ids=w.ids, weights=weights, **matrices)
    config = replace(w.config, num_experts=len(w.held))
    found: Array = RunnerWork({}, config, local, {}).answer
    return found


def of_experts(inputs: ExpertsInputs, held: Array) -> dict[str, Array]:
    """Return the matrices and biases of some experts."""
    return {n: each[held] for n, each in inputs.arrays().items() if n in OF_EXPERTS}


SHARDING: dict[str, SharderStage] = {
    "held": lambda w: w.placement.local(w.rank),
    "number": lambda w: numbered(w.held, w.config.num_experts),
    "turn": in_turn,
    "ids": lambda w: np.where(w.turn, w.number[w.inputs.expert_ids], -1),
    "matrices": lambda w: of_experts(w.inputs, w.held),
    "part": run,
    "answer": lambda w: w.part,
}
"""The right stages of a rank's part, by name."""
