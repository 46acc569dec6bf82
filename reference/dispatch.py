"""Dispatch: the score function of a block that comes without a configuration.

Source: ``docs/spec/dispatch.md``.
"""

from __future__ import annotations

from dataclasses import replace

from moe_routing.reference.config import RouterConfig
from moe_routing.reference.inputs import RouterInputs
from moe_routing.reference.routing import Routing, route


def dispatched_config(config: RouterConfig, inputs: RouterInputs) -> RouterConfig:
    """Return ``config`` with the score function that a dispatcher must pick.

    A selection bias, wherever it is placed, means ``sigmoid``; none means ``softmax``.
    ``config.score`` is not read.
    """
    return replace(config, score="softmax" if inputs.selection_bias is None else "sigmoid")


def dispatch(config: RouterConfig, inputs: RouterInputs) -> Routing:
    """Route ``inputs`` by the dispatched configuration. Errors: as ``route``."""
    return route(dispatched_config(config, inputs), inputs)
