"""Work: one call in progress, as the stages of a router see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.implementations import Unsupported

Array = npt.NDArray[Any]
Stage = Callable[["Work"], Any]

_OWN = ("config", "dispatched")
"""Stages that depend on the router's claims, and so are never taken from another's work."""


class Work:
    """One call in progress: a stage's value is computed when it is first asked for.

    ``asked`` and ``inputs`` are what the call was given, ``claims`` the router's
    capabilities, ``memory`` what it keeps between calls (a right router has no use for
    it). ``plain`` is the plain router's work on the same call: what does not follow from a
    replaced stage is taken from there, bit for bit. Arrays are float32 unless a stage says
    otherwise; shapes as in ``moe_routing.reference.Stages``.
    """

    config: Any
    valid: Any
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
    answer: Any
    parting: None
    dispatched: Any
    shared_input: Array
    shared_output: Array
    shared_gate: Array | None
    contribution: Array | None

    def __init__(
        self,
        stages: Mapping[str, Stage],
        asked: Any,
        inputs: Any,
        claims: Any,
        memory: dict[Any, Any],
        plain: PlainWork | None = None,
    ) -> None:
        self._stages, self.asked, self.inputs = stages, asked, inputs
        self.claims, self.memory, self._plain = claims, memory, plain
        self._same: dict[str, bool] = {}
        self._agreeing: dict[str, bool] = {}

    def redone(self, **stages: Stage) -> Work:
        """Return the same call, to be done anew with other stages."""
        changed = {**self._stages, **stages}
        return Work(changed, self.asked, self.inputs, self.claims, self.memory, self._plain)

    def __getattr__(self, stage: str) -> Any:
        if stage.startswith("_") or stage not in self._stages:
            raise AttributeError(f"a router has no stage {stage!r}")
        shared = self._plain is not None and self._is_plain(stage)
        value = self._plain.value(stage) if shared else self._stages[stage](self)
        vars(self)[stage] = value
        return value

    def require_claimed(self) -> None:
        """Refuse a call that the router does not claim. Errors: ``Unsupported``."""
        if self._plain is None or not self._plain.claimed_by(self.claims):
            self.claims.require(self.asked, self.inputs)

    @property
    def num_tokens(self) -> int:
        """T."""
        return len(self.inputs.hidden)

    @property
    def experts_per_group(self) -> int:
        """The size of a group."""
        return self.config.num_experts // self.config.groups.count

    def _is_plain(self, stage: str) -> bool:
        """Tell whether ``stage`` follows from nothing that differs from the plain router."""
        same = self._same.get(stage)
        if same is None:
            own = stage in _OWN or self._stages[stage] is not self._plain.stages[stage]
            same = not own and self._plain.can(stage) and self._agrees(self._plain.reads[stage])
            self._same[stage] = same
        return same

    def _agrees(self, stages: Iterable[str]) -> bool:
        """Tell whether the values of all ``stages`` are those of the plain router."""
        known = self._agreeing
        for stage in stages:
            agrees = known.get(stage)
            if agrees is None:
                agrees = self._is_plain(stage) or _equal(
                    getattr(self, stage), self._plain.value(stage)
                )
                known[stage] = agrees
            if not agrees:
                return False
        return True


class PlainWork:
    """The plain router's work on one call, which notes what each stage reads."""

    def __init__(self, stages: Mapping[str, Stage], asked: Any, inputs: Any, claims: Any) -> None:
        self.stages, self.reads = stages, {}
        self._values: dict[str, Any] = {}
        self._claimed: dict[int, tuple[Any, bool]] = {}
        self._work = _Noted(self, asked, inputs, claims)
        self._doing: list[str] = []

    def value(self, stage: str) -> Any:
        """Return the value of ``stage``, noting that the stage in progress reads it."""
        if self._doing:
            self.reads[self._doing[-1]].add(stage)
        if stage not in self._values:
            self.reads[stage] = set()
            self._doing.append(stage)
            try:
                self._values[stage] = self.stages[stage](self._work)
            finally:
                self._doing.pop()
        return self._values[stage]

    def claimed_by(self, claims: Any) -> bool:
        """Tell whether ``claims`` admit the call, once for all routers that share them."""
        if id(claims) not in self._claimed:
            admitted = claims.admits(self._work.asked, self._work.inputs)
            self._claimed[id(claims)] = claims, admitted  # kept, so that the id stays its own
        return self._claimed[id(claims)][1]

    def can(self, stage: str) -> bool:
        """Tell whether the plain router gets as far as ``stage``: it refuses bad calls."""
        if stage not in self._values:
            try:
                self.value(stage)
            except (ValueError, Unsupported):
                return False
        return True


class _Noted(Work):
    """The plain router's view of its own work: every reading passes through the notes."""

    def __init__(self, notes: PlainWork, asked: Any, inputs: Any, claims: Any) -> None:
        super().__init__(notes.stages, asked, inputs, claims, {})
        self._notes = notes

    def __getattr__(self, stage: str) -> Any:
        if stage.startswith("_") or stage not in self._stages:
            raise AttributeError(f"a router has no stage {stage!r}")
        return self._notes.value(stage)


def _equal(value: Any, plain: Any) -> bool:
    """Tell whether two values of a stage are the same, arrays to the bit."""
    if not isinstance(value, np.ndarray) or not isinstance(plain, np.ndarray):
        return value is plain or (type(value) is type(plain) and value == plain)
    if value is plain:
        return True
    alike = value.dtype == plain.dtype and value.shape == plain.shape
    return alike and value.tobytes() == plain.tobytes()
