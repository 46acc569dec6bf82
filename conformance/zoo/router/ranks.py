"""The zoo's ranks: a layer spread over ranks in NumPy, all of them at once, made of stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.learner import LearnerWork
from moe_routing.conformance.zoo.router.runner import RunnerWork
from moe_routing.conformance.zoo.router.sharder import numbered, of_experts
from moe_routing.conformance.zoo.router.staged import StagedAdapter, StagedWork
from moe_routing.reference import ExpertGradients, ExpertsConfig, ExpertsInputs, Placement
from moe_routing.reference import computed_by as computed_by_rank
from moe_routing.reference.experts import OF_EXPERTS
from moe_routing.reference.routes import Routes

_TOKENS = ("hidden", "weights")


@dataclass(frozen=True, eq=False)
class RanksCall:
    """One call of all ranks: the inputs of each, and their cotangents where gradients are due.

    ``shared`` says that all have the same tokens.
    """

    config: ExpertsConfig
    batches: Sequence[ExpertsInputs]
    placement: Placement
    cotangents: Sequence[Array] = ()
    shared: bool = False

    @property
    def ranks(self) -> range:
        """The ranks, in order."""
        return range(self.placement.num_ranks)

    def joined(self, arrays: Sequence[Array]) -> Array:
        """Return arrays of all ranks as one, or the first where all are the same."""
        return arrays[0] if self.shared else np.concatenate(arrays)


class RanksWork(StagedWork):
    """One call of all ranks in progress.

    With T tokens over all: ``home [T]`` (the rank of each, -1 for all), ``ids`` and ``weights [T,
    K]``, ``hidden [T, H]``, ``target [T, K]`` (the rank that a route goes to, -1 where absent),
    ``number [R]`` (the local numbers of experts on each rank), ``parts [R]`` (what each rank makes
    of all tokens, ``[T, H]``), ``summed [T, H]``, ``answer`` (by rank). Of gradients: ``learned
    [R]`` (each rank's, of all tokens and of its own experts), ``of_tokens`` (their sums, by name),
    ``of_experts [R]``, ``gradients`` (by rank).
    """

    home: Array
    hidden: Array
    ids: Array
    weights: Array
    target: Array
    number: Sequence[Array]
    parts: Sequence[Array]
    summed: Array
    answer: Any
    learned: Sequence[ExpertGradients]
    of_tokens: Mapping[str, Array]
    of_experts: Sequence[Mapping[str, Array]]
    gradients: Any

    def __init__(self, own: Mapping[str, Any], call: RanksCall, memory: dict[Any, Any]) -> None:
        super().__init__("a call of ranks", ON_RANKS, own, memory)
        self.call = call

    @property
    def ranks(self) -> range:
        """The ranks, in order."""
        return self.call.ranks

    @property
    def placement(self) -> Placement:
        """Where experts live."""
        return self.call.placement

    def own(self, rank: int) -> Array:
        """Return the tokens of a rank, as places among all."""
        return np.flatnonzero((self.home == rank) | (self.home < 0))

    def local(self, rank: int) -> tuple[ExpertsConfig, ExpertsInputs] | None:
        """Return the call of a rank's own experts on all tokens, or None where it has none."""
        held = self.placement.local(rank)
        if not held.size:
            return None
        ids = np.where(self.target == rank, self.number[rank][self.ids], -1)
        first = self.call.batches[rank]
        inputs = replace(
            first,
            hidden=self.hidden,
            expert_ids=ids,
            weights=np.where(ids < 0, np.float32(0), self.weights),
            **of_experts(first, held),  # type: ignore[arg-type]
        )
        return replace(self.call.config, num_experts=int(held.size)), inputs


class StagedRanks(StagedAdapter):
    """An adapter that only runs on all ranks at once, without processes of its own."""

    def on_ranks(
        self, config: ExpertsConfig, batches: Sequence[ExpertsInputs], placement: Placement
    ) -> Any:
        """Return the stage ``answer``. Errors: ``Unsupported``."""
        return self._work(RanksCall(config, batches, placement, shared=self._shared)).answer

    def gradients_on_ranks(
        self,
        config: ExpertsConfig,
        batches: Sequence[ExpertsInputs],
        placement: Placement,
        cotangents: Sequence[Array],
    ) -> Any:
        """Return the stage ``gradients``. Errors: ``Unsupported``."""
        call = RanksCall(config, batches, placement, cotangents, self._shared)
        return self._work(call).gradients

    @property
    def _shared(self) -> bool:
        return self._capabilities.shards.batches == "shared"

    def _work(self, call: RanksCall) -> RanksWork:
        for inputs in call.batches:
            self._capabilities.computes.require(call.config, inputs)
        self._capabilities.shards.require(call.placement)
        return RanksWork(self._stages, call, self.memory)


def home_of(w: RanksWork) -> Array:
    """Return the rank of each token."""
    counts = [each.num_tokens for each in w.call.batches]
    return np.full(counts[0], -1) if w.call.shared else np.repeat(np.arange(len(counts)), counts)


def target_of(w: RanksWork) -> Array:
    """Return the rank that computes each route."""
    return computed_by_rank(Routes(expert_ids=w.ids, weights=w.weights), w.placement)


def part_of(w: RanksWork, rank: int) -> Array:
    """Return what a rank's experts make of all tokens."""
    call = w.local(rank)
    if call is None:
        return np.zeros(w.hidden.shape, np.float32)
    found: Array = RunnerWork({}, *call, {}).answer
    return found


def summed(w: RanksWork) -> Array:
    """Add up what the ranks answer, and store it."""
    return _stored(w, _added(w.parts))


def _added(parts: Sequence[Array]) -> Array:
    return np.asarray(np.sum(parts, axis=0, dtype=np.float32))


def _stored(w: RanksWork, values: Array) -> Array:
    return RunnerWork({}, w.call.config, w.call.batches[0], {}).stored(values)


def learned_on(w: RanksWork, rank: int) -> ExpertGradients:
    """Return the gradients of a rank's experts on all tokens."""
    call = w.local(rank)
    if call is None:
        return ExpertGradients(hidden=np.zeros_like(w.hidden), weights=np.zeros_like(w.weights))
    cotangent = w.call.joined([np.asarray(each) for each in w.call.cotangents])
    found: ExpertGradients = LearnerWork({}, RunnerWork({}, *call, {}), cotangent, {}).answer
    return found


def sums_of_tokens(w: RanksWork) -> dict[str, Array]:
    """Return the gradients of tokens and weights, summed over the ranks."""
    return {
        name: _stored(w, _added([getattr(each, name) for each in w.learned])) for name in _TOKENS
    }


def matrices_on(w: RanksWork, rank: int) -> dict[str, Array]:
    """Return the gradients of a rank's experts, in arrays of all experts."""
    held, found = w.placement.local(rank), {}
    for name, array in w.learned[rank].arrays().items():
        if name in OF_EXPERTS:
            whole = np.zeros((w.call.config.num_experts, *array.shape[1:]), np.float32)
            whole[held] = array
            found[name] = whole
    return found


def gradients_of(w: RanksWork) -> list[ExpertGradients]:
    """Return the gradients of each rank: of its tokens, and of its experts."""
    return [
        ExpertGradients(
            **{name: w.of_tokens[name][w.own(rank)] for name in _TOKENS}, **w.of_experts[rank]
        )
        for rank in w.ranks
    ]


ON_RANKS: dict[str, Any] = {
    "home": home_of,
    "hidden": lambda w: w.call.joined([each.hidden for each in w.call.batches]),
    "ids": lambda w: w.call.joined([each.expert_ids for each in w.call.batches]),
    "weights": lambda w: w.call.joined([each.weights for each in w.call.batches]),
    "target": target_of,
    "number": lambda w: [
        numbered(w.placement.local(rank), w.call.config.num_experts) for rank in w.ranks
    ],
    "parts": lambda w: [part_of(w, rank) for rank in w.ranks],
    "summed": summed,
    "answer": lambda w: [w.summed[w.own(rank)] for rank in w.ranks],
    "learned": lambda w: [learned_on(w, rank) for rank in w.ranks],
    "of_tokens": sums_of_tokens,
    "of_experts": lambda w: [matrices_on(w, rank) for rank in w.ranks],
    "gradients": gradients_of,
}
"""The right stages of a call of all ranks, by name."""
