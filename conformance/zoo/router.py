"""The zoo's router: a right float32 router in NumPy, made of stages that can be replaced.

A mutant replaces one stage by a wrong one, an honest variant by another right one. A
stage is a function of the ``Work`` done so far; the names of the stages are the
reference's (``moe_routing.reference.Stages``), and before them those of the inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.stages import RIGHT
from moe_routing.conformance.zoo.work import Stage, Work
from moe_routing.implementations import Capabilities
from moe_routing.reference import (
    RouterConfig,
    RouterInputs,
    SharedExpertConfig,
    SharedExpertInputs,
)


class StagedRouter:
    """An adapter whose answer is the last of its stages."""

    def __init__(self, name: str, stages: Mapping[str, Stage], capabilities: Capabilities) -> None:
        self.name, self.memory = name, {}
        self._stages, self._capabilities = {**RIGHT, **stages}, capabilities

    def capabilities(self) -> Capabilities:
        """Return what it was made to claim."""
        return self._capabilities

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Any:
        """Return the stage ``answer``. Errors: ``Unsupported``, ``ValueError``."""
        self._capabilities.require(config, inputs)
        return self._run("answer", config, inputs)

    def dispatch(self, config: RouterConfig, inputs: RouterInputs) -> Any:
        """Return the answer of the score function that the stage ``dispatched`` picks."""
        return self._run("answer", self._run("dispatched", config, inputs), inputs)

    def shared_experts(self, config: SharedExpertConfig, inputs: SharedExpertInputs) -> Any:
        """Return the stage ``contribution``."""
        return self._run("contribution", config, inputs)

    def _run(self, stage: str, config: Any, inputs: Any) -> Any:
        work = Work(self._stages, config, inputs, self.memory)
        with np.errstate(all="ignore"):
            answer = getattr(work, stage)
        work.parting  # noqa: B018  asked for what it does
        return answer
