"""The zoo's router: a right float32 router in NumPy, made of stages that can be replaced.

A mutant replaces one stage by a wrong one, an honest variant by another right one. A
stage is a function of the ``Work`` done so far; the names of the stages are the
reference's (``moe_routing.reference.Stages``), and before them those of the inputs.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Any

import numpy as np

from moe_routing.conformance.calls.memory import with_fresh_arrays
from moe_routing.conformance.trial.memo import contents
from moe_routing.conformance.zoo.router.staged import StagedAdapter
from moe_routing.conformance.zoo.router.stages import RIGHT
from moe_routing.conformance.zoo.router.work import PlainWork, Work
from moe_routing.implementations import Capabilities
from moe_routing.reference import (
    RouterConfig,
    RouterInputs,
    SharedExpertConfig,
    SharedExpertInputs,
)

_WHOLE = Capabilities()
_REMEMBERED = 8
"""The number of calls whose plain work is cached: those that residents get one after the other."""


class StagedRouter(StagedAdapter):
    """An adapter whose answer is the last of its stages."""

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Any:
        """Return the stage ``answer``. Errors: ``Unsupported``, ``ValueError``."""
        return self._run("answer", config, inputs)

    def dispatch(self, config: RouterConfig, inputs: RouterInputs) -> Any:
        """Return the answer of the score function that the stage ``dispatched`` picks."""
        return self._run("answer", self._run("dispatched", config, inputs), inputs)

    def shared_experts(self, config: SharedExpertConfig, inputs: SharedExpertInputs) -> Any:
        """Return the stage ``contribution``."""
        return self._run("contribution", config, inputs)

    def _run(self, stage: str, config: Any, inputs: Any) -> Any:
        plain = _PLAIN.on(config, inputs)
        work = Work(self._stages, RIGHT, config, inputs, self._capabilities, self.memory, plain)
        with np.errstate(all="ignore"):
            answer = getattr(work, stage)
        work.parting  # noqa: B018  evaluated for its side effect
        return answer


class _PlainWorks(threading.local):
    """The plain router's work on the latest calls of a thread, done once for all routers."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Hashable], PlainWork] = {}
        self._inputs: Any = None
        self._works: dict[int, tuple[Any, PlainWork]] = {}

    def on(self, config: Any, inputs: Any) -> PlainWork:
        """Return the work on this call.

        Inputs that are the same object as in the previous call hold the same values: inputs
        that a router has changed are not passed to another.
        """
        if inputs is not self._inputs:
            self._inputs, self._works = inputs, {}
        if id(config) not in self._works:
            self._works[id(config)] = config, self._found(config, inputs)
        return self._works[id(config)][1]

    def _found(self, config: Any, inputs: Any) -> PlainWork:
        key = repr(config), contents(inputs)
        if key not in self._known:
            if len(self._known) >= _REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[key] = PlainWork(RIGHT, config, with_fresh_arrays(inputs), _WHOLE)
        return self._known[key]


_PLAIN = _PlainWorks()
