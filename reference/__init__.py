"""The reference router: what Mixture-of-Experts routing means, executable, in pure NumPy."""

from moe_routing.reference.config import Groups, Renormalize, RmsNorm, RouterConfig
from moe_routing.reference.dispatch import dispatch, dispatched_config
from moe_routing.reference.formats import FORMATS, FloatFormat
from moe_routing.reference.inputs import RouterInputs, check_inputs
from moe_routing.reference.presets import PRESETS, Preset, preset
from moe_routing.reference.routing import Routing, Stages, route, stages
from moe_routing.reference.shared_experts import (
    SharedExpertConfig,
    SharedExpertInputs,
    shared_contribution,
)

SPEC_VERSION = "1.0"
"""The version of the specification in ``docs/spec/`` that this package computes."""

__all__ = [
    "FORMATS",
    "PRESETS",
    "SPEC_VERSION",
    "FloatFormat",
    "Groups",
    "Preset",
    "Renormalize",
    "RmsNorm",
    "RouterConfig",
    "RouterInputs",
    "Routing",
    "SharedExpertConfig",
    "SharedExpertInputs",
    "Stages",
    "check_inputs",
    "dispatch",
    "dispatched_config",
    "preset",
    "route",
    "shared_contribution",
    "stages",
]
