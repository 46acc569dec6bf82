"""How two of transformers' experts functions sort by expert: their permutations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.experts.adapter import ExpertsFunction, marked
from moe_routing.implementations.experts.models import MODELS, USUAL
from moe_routing.implementations.experts.registered import function_of, transformers_module
from moe_routing.implementations.on_device import OnDevice
from moe_routing.implementations.permutes import Permutes
from moe_routing.implementations.tensors import torch_tensor
from moe_routing.reference import (
    ExpertsConfig,
    ExpertsInputs,
    PermutationConfig,
    Routes,
    RowOfRoute,
    SortedTokens,
)

if TYPE_CHECKING:
    from torch import Tensor

_WIDTH = 8  # of hidden states and experts: rows of 16 bytes, as torch.grouped_mm wants them
_SORTED = Permutes(align=(1,), empty_takes=("nothing",), order=("free",), repeats=(False,))
_ALIGNED = Permutes(empty_takes=("nothing",), order=("free",))


class GroupedMm(ExpertsFunction):
    """``grouped_mm``, which sorts its tokens: what it hands to its first product is read."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__(function_of("grouped_mm"), MODELS[USUAL], device, permutes=_SORTED)

    def permute(self, config: PermutationConfig, routes: Routes) -> SortedTokens:
        """Run experts of zeros on tokens that hold their numbers. Errors: as ``experts``."""
        _SORTED.require(config, routes)
        moe: Any = transformers_module("integrations.moe")
        heard: list[tuple[Tensor, Tensor]] = []
        product = moe._grouped_linear

        def listening(rows: Tensor, weight: Tensor, ends: Tensor, **named: Any) -> Tensor:
            heard.append((rows.clone(), ends.clone()))
            output: Tensor = product(rows, weight, ends, **named)
            return output

        with patch.object(moe, "_grouped_linear", listening):
            self.experts(ExpertsConfig(num_experts=config.num_experts), _numbered(config, routes))
        rows, ends = heard[0]
        counts = ends.diff(prepend=ends.new_zeros(1))
        return SortedTokens(tokens=rows[: int(ends[-1]), 0].long(), counts=counts)


class DeepGemmLayout(OnDevice):
    """What comes before the kernel of ``deepgemm``: a sort, and rows aligned for each expert.

    It is transformers' own code, and needs neither the kernel nor a GPU.
    """

    name = "experts:deepgemm_layout"
    wraps = "transformers"
    claimed = Capabilities(permutes=_ALIGNED)

    def permute(self, config: PermutationConfig, routes: Routes) -> RowOfRoute:
        """Call its two functions. Errors: ``Unsupported``, ``BackendMissing``."""
        _ALIGNED.require(config, routes)
        deepgemm: Any = transformers_module("integrations.deepgemm")
        import torch

        experts = config.num_experts
        ids = torch_tensor("ids", marked(routes, experts), dtype="int64", device=self.device)
        sorted_ids, perm = torch.sort(ids.flatten())  # as ``_dispatch_routed_input`` sorts
        rows, ends, _ = deepgemm._build_deepgemm_contiguous_layout(
            sorted_ids, experts, config.align, use_psum_layout=True
        )
        of_route = torch.empty_like(perm)
        of_route[perm] = rows
        starts = torch.cat([ends.new_zeros(1), ends])
        return RowOfRoute(row_of_route=of_route.reshape(ids.shape), starts=starts)


def _numbered(config: PermutationConfig, routes: Routes) -> ExpertsInputs:
    """Return a call of experts whose tokens hold their own numbers."""
    weights = np.zeros((config.num_experts, _WIDTH, _WIDTH), np.float32)
    hidden = np.repeat(np.arange(routes.num_tokens, dtype=np.float32)[:, None], _WIDTH, axis=1)
    return ExpertsInputs(
        hidden=hidden,
        expert_ids=routes.expert_ids,
        weights=routes.weights,
        gate_weight=weights,
        up_weight=weights,
        down_weight=weights,
    )
