"""The reference router: what Mixture-of-Experts routing means, executable, in pure NumPy."""

from moe_routing.reference.balance import BalanceConfig, BalanceInputs
from moe_routing.reference.capacity import CapacityConfig, drop
from moe_routing.reference.config import (
    Groups,
    Renormalize,
    RmsNorm,
    RouterConfig,
    SharedSlots,
)
from moe_routing.reference.dispatch import dispatch, dispatched_config
from moe_routing.reference.expert_gradients import (
    EXPERT_GRADIENTS,
    ExpertGradients,
    expert_gradients,
)
from moe_routing.reference.expert_layouts import (
    down_weights,
    gate_up,
    gate_up_bias,
    up_weights,
)
from moe_routing.reference.experts import ExpertsConfig, ExpertsInputs, expert_outputs, experts
from moe_routing.reference.formats import FORMATS, FloatFormat
from moe_routing.reference.gradients import GRADIENTS, Gradients, gradients
from moe_routing.reference.inputs import RouterInputs, check_inputs
from moe_routing.reference.layer import LayerConfig, LayerInputs, LayerResult, layer
from moe_routing.reference.layout_readers import permutation_of, read_layout
from moe_routing.reference.layout_writers import (
    as_aligned_blocks,
    as_row_of_route,
    as_sorted_routes,
    as_sorted_tokens,
    weight_of_row,
)
from moe_routing.reference.layouts import AlignedBlocks, RowOfRoute, SortedRoutes, SortedTokens
from moe_routing.reference.model_configs import MODEL_TYPES, nearest_preset, preset_of_config
from moe_routing.reference.padding import Padding, route_padded
from moe_routing.reference.permutation import Permutation, PermutationConfig, permute, realign
from moe_routing.reference.permutation_maps import (
    Tiles,
    expert_of_row,
    offsets,
    row_of_route,
    tiles,
    token_of_row,
)
from moe_routing.reference.presets import PRESETS, Preset, preset
from moe_routing.reference.records import from_megatron, from_sglang, from_vllm, rows_of
from moe_routing.reference.replay import Recorded, replay
from moe_routing.reference.routes import Routes
from moe_routing.reference.routing import Routing, Stages, route, stages
from moe_routing.reference.shards import (
    Placement,
    computed_by,
    even_placement,
    local_call,
    shard,
)
from moe_routing.reference.shared_experts import (
    SharedExpertConfig,
    SharedExpertInputs,
    shared_contribution,
)

SPEC_VERSION = "1.2"
"""The version of the specification in ``docs/spec/`` that this package computes."""

__all__ = [
    "EXPERT_GRADIENTS",
    "FORMATS",
    "GRADIENTS",
    "MODEL_TYPES",
    "PRESETS",
    "SPEC_VERSION",
    "AlignedBlocks",
    "BalanceConfig",
    "BalanceInputs",
    "CapacityConfig",
    "ExpertGradients",
    "ExpertsConfig",
    "ExpertsInputs",
    "FloatFormat",
    "Gradients",
    "Groups",
    "LayerConfig",
    "LayerInputs",
    "LayerResult",
    "Padding",
    "Permutation",
    "PermutationConfig",
    "Placement",
    "Preset",
    "Recorded",
    "Renormalize",
    "RmsNorm",
    "RouterConfig",
    "RouterInputs",
    "Routes",
    "Routing",
    "RowOfRoute",
    "SharedExpertConfig",
    "SharedExpertInputs",
    "SharedSlots",
    "SortedRoutes",
    "SortedTokens",
    "Stages",
    "Tiles",
    "as_aligned_blocks",
    "as_row_of_route",
    "as_sorted_routes",
    "as_sorted_tokens",
    "check_inputs",
    "computed_by",
    "dispatch",
    "dispatched_config",
    "down_weights",
    "drop",
    "even_placement",
    "expert_gradients",
    "expert_of_row",
    "expert_outputs",
    "experts",
    "from_megatron",
    "from_sglang",
    "from_vllm",
    "gate_up",
    "gate_up_bias",
    "gradients",
    "layer",
    "local_call",
    "nearest_preset",
    "offsets",
    "permutation_of",
    "permute",
    "preset",
    "preset_of_config",
    "read_layout",
    "realign",
    "replay",
    "route",
    "route_padded",
    "row_of_route",
    "rows_of",
    "shard",
    "shared_contribution",
    "stages",
    "tiles",
    "token_of_row",
    "up_weights",
    "weight_of_row",
]
