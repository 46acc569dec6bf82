"""Calls of a router on a padded batch."""

from __future__ import annotations

from moe_routing.conformance.calls.padding import PaddedCase, PaddedInputs
from moe_routing.conformance.cases.kinds.kind import Kind
from moe_routing.conformance.cases.kinds.routing import ROUTING
from moe_routing.conformance.generators.padding import PADDING_REDUCTIONS, PADDING_SIZES
from moe_routing.conformance.generators.reductions import ROUTING_REDUCTIONS
from moe_routing.conformance.trial.padding import PaddingTrial
from moe_routing.conformance.trial.padding import facts_of as padding_facts
from moe_routing.implementations import Capabilities
from moe_routing.implementations.claims import INPUT_AXES
from moe_routing.reference import RouterConfig


def _padding_refused(case: PaddedCase, capabilities: Capabilities) -> list[str]:
    """Return what capabilities lack for a padded batch, in phrases."""
    found = capabilities.pads.refusals(case.inputs.padding)
    return capabilities.refusals(case.config, case.inputs) + found


PADDED = Kind(
    case=PaddedCase,
    config=RouterConfig.unchecked,
    inputs=PaddedInputs,
    words=(*ROUTING.words, "told"),
    integers=(*ROUTING.integers, "real"),
    methods=("route_padded",),
    trial=PaddingTrial,
    facts=padding_facts,
    reductions=(*PADDING_REDUCTIONS, *ROUTING_REDUCTIONS),
    sizes=PADDING_SIZES,
    claimed=lambda case, capabilities: not _padding_refused(case, capabilities),
    refusals=_padding_refused,
    axes=INPUT_AXES,
    compared=ROUTING.compared,
    contains={"routing": lambda facts: facts.bounds},
)
