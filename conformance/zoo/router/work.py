"""Work: one call in progress, as the stages of a router see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.implementations import Capabilities, Unsupported
from moe_routing.reference import Groups, Renormalize, RouterConfig, SharedSlots

Stage = Callable[["Work"], Any]

_CLAIMED = "config"
"""The stage that refuses what the router does not claim."""


class Work:
    """One call in progress: a stage's value is computed when it is first read.

    ``own`` are the stages that the router has in place of those in ``right``. ``requested``
    and ``inputs`` are the call's configuration and inputs, ``claims`` the router's
    capabilities, ``memory`` what it stores between calls (a right router has no use for it).
    ``plain`` is the plain router's work on the same call: what does not follow from a replaced
    stage is taken from it, bit for bit. Arrays are float32 unless a stage specifies another
    dtype; shapes as in ``moe_routing.reference.Stages``.
    """

    config: RouterConfig
    valid: RouterConfig
    hidden: Array
    gate_weight: Array
    gate_bias: Array | None
    gate_delta: Array | None
    selection_bias: Array | None
    per_expert_scale: Array | None
    gate_input: Array
    logits: Array
    operated: Array
    scores: Array
    biased: Array
    group_scores: Array
    kept_groups: Array
    kept: Array
    competing: Array
    expert_ids: Array
    gathered: Array
    norm: Array
    renormalized: Array
    scaled: Array
    weights: Array
    reported_logits: Array | None
    fused_weights: Array
    fused_ids: Array
    answer: Any
    parting: None
    dispatched: RouterConfig
    shared_input: Array
    shared_output: Array
    shared_gate: Array | None
    contribution: Array | None

    def __init__(
        self,
        own: Mapping[str, Stage],
        right: Mapping[str, Stage],
        requested: Any,
        inputs: Any,
        claims: Capabilities,
        memory: dict[Any, Any],
        plain: PlainWork | None = None,
    ) -> None:
        self._own, self._right, self.requested, self.inputs = own, right, requested, inputs
        self.claims, self.memory, self._plain = claims, memory, plain
        self._sources = frozenset((*own, _CLAIMED))
        self._same: dict[str, bool] = {}
        self._agreeing: dict[str, bool] = {}

    def redone(self, **stages: Stage) -> Work:
        """Return the same call, to be computed anew with other stages."""
        own = {**self._own, **stages}
        return Work(
            own, self._right, self.requested, self.inputs, self.claims, self.memory, self._plain
        )

    def __getattr__(self, stage: str) -> Any:
        if stage not in self._right:
            raise AttributeError(f"a router has no stage {stage!r}")
        if self._plain is not None and self._is_plain(stage, self._plain):
            value = self._plain.value(stage)
        else:
            value = (self._own.get(stage) or self._right[stage])(self)
        vars(self)[stage] = value
        return value

    def require_claimed(self) -> None:
        """Refuse a call that the router does not claim. Errors: ``Unsupported``."""
        if self._plain is None or not self._plain.claimed_by(self.claims):
            self.claims.require(self.requested, self.inputs)

    @property
    def num_tokens(self) -> int:
        """T."""
        return len(self.inputs.hidden)

    @property
    def experts_per_group(self) -> int:
        """The size of a group."""
        return self.config.num_experts // self.groups.count

    @property
    def groups(self) -> Groups:
        """The groups, for stages that only a router with groups gets to."""
        assert self.config.groups is not None
        return self.config.groups

    @property
    def fused(self) -> SharedSlots:
        """The shared slots, for stages that only a router with some gets to."""
        assert self.config.shared_slots is not None
        return self.config.shared_slots

    @property
    def rule(self) -> Renormalize:
        """The renormalisation, for stages that only a router with one gets to."""
        assert self.config.renormalize is not None
        return self.config.renormalize

    def _is_plain(self, stage: str, plain: PlainWork) -> bool:
        """Return whether ``stage`` follows from nothing that differs from the plain router."""
        same = self._same.get(stage)
        if same is None:
            same = stage not in self._own and plain.can(stage) and self._follows(stage, plain)
            self._same[stage] = same
        return same

    def _follows(self, stage: str, plain: PlainWork) -> bool:
        """Return whether all that a plain stage follows from agrees: its sources, or what it reads.

        Sources that differ may still give the values that the stage reads.
        """
        if stage == _CLAIMED:
            return plain.claimed_by(self.claims)
        sources = plain.sources(stage, self._sources)
        return self._agree(sources, plain) or self._agree(plain.reads[stage], plain)

    def _agree(self, stages: Iterable[str], plain: PlainWork) -> bool:
        """Return whether the values of all ``stages`` are those of the plain router."""
        known = self._agreeing
        for stage in stages:
            agrees = known.get(stage)
            if agrees is None:
                agrees = self._is_plain(stage, plain) or _equal(
                    getattr(self, stage), plain.value(stage)
                )
                known[stage] = agrees
            if not agrees:
                return False
        return True


class PlainWork:
    """The plain router's work on one call, which records what each stage reads."""

    def __init__(
        self, stages: Mapping[str, Stage], requested: Any, inputs: Any, claims: Capabilities
    ) -> None:
        self.stages = stages
        self.reads: dict[str, set[str]] = {}
        self._values: dict[str, Any] = {}
        self._beyond: set[str] = set()
        self._origins: dict[str, _Origin] = {}
        self._claimed: dict[int, tuple[Capabilities, bool]] = {}
        self._work = _Noted(self, requested, inputs, claims)
        self._doing: list[str] = []

    def value(self, stage: str) -> Any:
        """Return the value of ``stage``, recording that the stage in progress reads it."""
        if self._doing:
            self.reads[self._doing[-1]].add(stage)
        if stage not in self._values:
            self.reads[stage] = set()
            self._doing.append(stage)
            try:
                self._values[stage] = _read_only(self.stages[stage](self._work))
            finally:
                self._doing.pop()
            reads = frozenset(self._origins[each] for each in self.reads[stage])
            self._origins[stage] = _origin(stage, reads)
        return self._values[stage]

    def sources(self, stage: str, among: frozenset[str]) -> frozenset[str]:
        """Return which of the stages ``among`` the computed ``stage`` follows from.

        They are read by it or, through stages that are not among them, by what it reads.
        """
        return _sources(self._origins[stage], among)

    def claimed_by(self, claims: Capabilities) -> bool:
        """Return whether ``claims`` admit the call, once for all routers that share them."""
        if id(claims) not in self._claimed:
            admitted = claims.admits(self._work.requested, self._work.inputs)
            self._claimed[id(claims)] = claims, admitted  # held, so that no other gets the id
        return self._claimed[id(claims)][1]

    def can(self, stage: str) -> bool:
        """Return whether the plain router reaches ``stage``: it refuses bad calls."""
        if stage not in self._values and stage not in self._beyond:
            try:
                self.value(stage)
            except (ValueError, Unsupported):
                self._beyond.add(stage)
        return stage in self._values


class _Origin:
    """A stage and what it reads, one object for all calls in which that is the same."""

    def __init__(self, stage: str, reads: frozenset[_Origin]) -> None:
        self.stage, self.reads = stage, reads


@cache
def _origin(stage: str, reads: frozenset[_Origin]) -> _Origin:
    return _Origin(stage, reads)


@cache
def _sources(origin: _Origin, among: frozenset[str]) -> frozenset[str]:
    apart = [each for each in origin.reads if each.stage not in among]
    read = frozenset(each.stage for each in origin.reads) & among
    return read.union(*(_sources(each, among) for each in apart))


class _Noted(Work):
    """The plain router's view of its own work: every read is recorded in the notes."""

    def __init__(self, notes: PlainWork, requested: Any, inputs: Any, claims: Capabilities) -> None:
        super().__init__({}, notes.stages, requested, inputs, claims, {})
        self._notes = notes

    def __getattr__(self, stage: str) -> Any:
        if stage not in self._right:
            raise AttributeError(f"a router has no stage {stage!r}")
        return self._notes.value(stage)


def _read_only(value: Any) -> Any:
    """Return a value that many routers read; an array is made read-only."""
    if isinstance(value, np.ndarray):
        value.flags.writeable = False
    return value


def _equal(value: Any, plain: Any) -> bool:
    """Return whether two values of a stage are the same: arrays in all bits and strides.

    A sum goes along the memory, so one of the same numbers in other strides may round otherwise.
    """
    if not isinstance(value, np.ndarray) or not isinstance(plain, np.ndarray):
        return value is plain or (type(value) is type(plain) and value == plain)
    if value is plain:
        return True
    alike = value.dtype == plain.dtype and value.shape == plain.shape
    alike = alike and value.strides == plain.strides
    return alike and value.tobytes() == plain.tobytes()
