"""Work: one call in progress, as the stages of a router see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]
Stage = Callable[["Work"], Any]


class Work:
    """One call in progress: a stage's value is computed when it is first asked for.

    ``asked`` and ``inputs`` are what the call was given, ``memory`` is the router's own,
    kept between calls (a right router has no use for it). Arrays are float32 unless a
    stage says otherwise; shapes as in ``moe_routing.reference.Stages``.
    """

    asked: Any
    inputs: Any
    memory: dict[Any, Any]
    config: Any
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
    shared_input: Array
    shared_output: Array
    shared_gate: Array | None
    contribution: Array | None

    def __init__(
        self, stages: Mapping[str, Stage], asked: Any, inputs: Any, memory: dict[Any, Any]
    ) -> None:
        self._stages, self.asked, self.inputs, self.memory = stages, asked, inputs, memory

    def __getattr__(self, stage: str) -> Any:
        if stage.startswith("__") or stage not in self._stages:
            raise AttributeError(f"a router has no stage {stage!r}")
        value = self._stages[stage](self)
        setattr(self, stage, value)
        return value

    @property
    def num_tokens(self) -> int:
        """T."""
        return len(self.inputs.hidden)

    @property
    def experts_per_group(self) -> int:
        """The size of a group."""
        return self.config.num_experts // self.config.groups.count
