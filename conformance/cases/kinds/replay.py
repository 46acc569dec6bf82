"""Calls that replay recorded routing."""

from __future__ import annotations

from moe_routing.conformance.calls.replay import ReplayCase, ReplayInputs
from moe_routing.conformance.cases.kinds.kind import Kind
from moe_routing.conformance.cases.kinds.routing import ROUTING
from moe_routing.conformance.generators.reductions import ROUTING_REDUCTIONS
from moe_routing.conformance.generators.replay import REPLAY_REDUCTIONS, REPLAY_SIZES
from moe_routing.conformance.trial.replay import ReplayTrial
from moe_routing.conformance.trial.replay import facts_of as replay_facts
from moe_routing.implementations import Capabilities
from moe_routing.implementations.claims import INPUT_AXES
from moe_routing.implementations.replays import RECORD_AXES
from moe_routing.reference import RouterConfig


def _replay_refused(case: ReplayCase, capabilities: Capabilities) -> list[str]:
    """Return what capabilities lack for a replay, in phrases."""
    found = capabilities.replays.refusals(case.config, case.inputs.recorded)
    return capabilities.refusals(case.config, case.inputs) + found


RECORDED = {
    name: lambda inputs, read=read: read(inputs.recorded) for name, read in RECORD_AXES.items()
}
"""What a region of a known divergence may name of a record, and how it is read of inputs."""


REPLAY = Kind(
    case=ReplayCase,
    config=RouterConfig.unchecked,
    inputs=ReplayInputs,
    words=(*ROUTING.words, "layer"),
    integers=(*ROUTING.integers, "recorded_ids", "rows"),
    methods=("replay",),
    trial=ReplayTrial,
    facts=replay_facts,
    reductions=(*REPLAY_REDUCTIONS, *ROUTING_REDUCTIONS),
    sizes=REPLAY_SIZES,
    claimed=lambda case, capabilities: not _replay_refused(case, capabilities),
    refusals=_replay_refused,
    axes={**INPUT_AXES, **RECORDED},
    compared=(*ROUTING.compared, *RECORDED),
    contains={"routing": lambda facts: facts.routing},
)
