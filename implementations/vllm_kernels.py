"""vLLM's compiled routing operations, from the wheel's own library: on a GPU."""

from __future__ import annotations

import importlib.util
import math
from functools import cache
from pathlib import Path
from typing import Any

from moe_routing.implementations.capabilities import Capabilities, Limits, Numerics
from moe_routing.implementations.claims import Claim, GroupRule
from moe_routing.implementations.functions import Family
from moe_routing.implementations.on_device import OnDevice
from moe_routing.implementations.permitted import ANY
from moe_routing.implementations.permutes import Permutes
from moe_routing.implementations.promises import Promises
from moe_routing.implementations.protocol import BackendMissing, require_gpu
from moe_routing.implementations.tensors import TorchInputs, torch_tensor
from moe_routing.reference import (
    AlignedBlocks,
    PermutationConfig,
    Renormalize,
    RouterConfig,
    Routes,
    Routing,
)

INSTALL = (
    "python -m pip install --no-deps --target vllm vllm==0.33.0 && export PYTHONPATH=$PWD/vllm"
)
KERNELS = Family("vllm", "vllm", needs_gpu=True)

_NORM = (None, Renormalize())
_ROWS: dict[str, Any] = {"takes": "logits", "layouts": ("contiguous",)}
_PROMISED: dict[str, Any] = {"promises": Promises(ties="lowest", slots="descending")}
"""What the sources say: lower indices win, and the greatest of what is left is taken K times."""

_SOME: dict[str, Any] = {**_ROWS, **_PROMISED, "limits": Limits(min_tokens=1)}


def in_wheel(pattern: str) -> list[Path]:
    """Return the files of the installed vllm that match ``pattern``; none where there is none."""
    spec = importlib.util.find_spec("vllm")
    folders = [Path(each) for each in (spec and spec.submodule_search_locations) or ()]
    return [each for folder in folders for each in sorted(folder.glob(pattern))]


@cache
def operations() -> Any:
    """Return the operations of the library that is in the wheel. Errors: ``BackendMissing``."""
    import torch

    found = in_wheel("_moe_C*.so")
    if not found:
        raise BackendMissing(f"vllm is not installed, or was built without CUDA: {INSTALL}")
    loaded: Any = torch.ops
    try:
        loaded.load_library(found[0])
    except OSError as error:
        lacks = str(error).splitlines()[0]
        raise BackendMissing(
            f"{found[0].name} does not load with torch {torch.__version__}: {lacks}"
        ) from error
    return loaded._moe_C


def fused(function: str, config: RouterConfig, given: TorchInputs, *others: Any) -> Routing:
    """Call an operation that writes into what it is given, as ``fused_topk`` calls it."""
    import torch

    logits = given.logits
    assert logits is not None, "it takes logits"
    shape = (len(logits), config.top_k)
    weights = torch.empty(shape, dtype=torch.float32, device=logits.device)
    ids, rows = (torch.empty(shape, dtype=torch.int32, device=logits.device) for _ in range(2))
    norm = config.renormalize is not None
    getattr(operations(), function)(weights, ids, rows, logits, norm, *others)
    return Routing(weights=weights, expert_ids=ids)


@KERNELS.function(Claim.plain(renormalize=_NORM), **_SOME)
def fused_topk(config: RouterConfig, given: TorchInputs) -> Routing:
    """``topk_softmax``: Mixtral, Qwen, OLMoE."""
    return fused("topk_softmax", config, given, None, None)


@KERNELS.function(Claim.plain(score=("sigmoid",), renormalize=_NORM), **_SOME)
def fused_topk_sigmoid(config: RouterConfig, given: TorchInputs) -> Routing:
    """``topk_sigmoid`` without a bias."""
    return fused("topk_sigmoid", config, given, None, 1.0, None)


_SOFTPLUS: dict[str, Any] = {"score": ("sqrtsoftplus",), "renormalize": _NORM, "scale": ANY}


@KERNELS.function(
    Claim.plain(**_SOFTPLUS),
    Claim.plain(expert_table=(True,), **_SOFTPLUS),
    **_ROWS,
    **_PROMISED,
    limits=Limits(min_tokens=1, experts=(8, 64, 256), max_top_k=8),
    numerics=Numerics(softplus="absolute"),
)
def fused_topk_softplus(config: RouterConfig, given: TorchInputs) -> Routing:
    """``topk_softplus_sqrt``: DeepSeek-V4 without a bias, hashed or not."""
    table, ids = given.expert_table, given.token_ids
    table = None if table is None else table.int()
    ids = None if ids is None else ids.int()
    others = (config.scale, None, ids, table, None, None, 0)
    return fused("topk_softplus_sqrt", config, given, *others)


@KERNELS.function(
    Claim.plain(
        score=("sigmoid",),
        groups=(GroupRule(top=(2,), fill=(-math.inf,)),),
        selection_bias=("gate",),
        renormalize=(None, Renormalize(eps=1e-20)),
        scale=ANY,
    ),
    **_ROWS,
    dtypes=("float32",),
    limits=Limits(
        min_tokens=1,
        experts=(256,),
        max_top_k=8,
        max_groups=32,
        max_group_size=32,
        max_kept_experts=128,
    ),
    numerics=Numerics(sigmoid="absolute"),
)
def fused_grouped_topk(config: RouterConfig, given: TorchInputs) -> Routing:
    """``grouped_topk`` of DeepSeek-V3's 256 experts, in all groups that its checks take."""
    groups = config.groups
    assert groups is not None, "claimed are groups alone"
    norm = config.renormalize is not None
    counts, biased = (groups.count, groups.kept, config.top_k), given.selection_bias
    found = operations().grouped_topk(given.logits, *counts, norm, config.scale, biased, 1)
    return Routing(weights=found[0], expert_ids=found[1])


_ALIGNED = Permutes(
    align=(16, 32, 64, 128), empty_takes=("nothing",), order=("free",), absent=(False,)
)


class MoeAlignBlockSize(OnDevice):
    """``moe_align_block_size``: blocks of one expert each, in arrays that its caller makes."""

    name = "vllm:moe_align_block_size"
    wraps = "vllm"
    claimed = Capabilities(permutes=_ALIGNED)

    def permute(self, config: PermutationConfig, routes: Routes) -> AlignedBlocks:
        """Call the operation as vLLM does. Errors: ``Unsupported``, ``BackendMissing``."""
        _ALIGNED.require(config, routes)
        require_gpu(self.name, self.device)
        ids = torch_tensor("expert_ids", routes.expert_ids, dtype="int64", device=self.device).int()
        experts, block, routed = config.num_experts, config.align, ids.numel()
        most = min(routed + experts * (block - 1), routed * block)
        rows, blocks, used = (ids.new_full((n,), -7) for n in (most, -(-most // block), 1))
        operations().moe_align_block_size(ids, experts, block, rows, blocks, used, None, None)
        used = used + 0  # a launch that failed raises here, and not in the next call
        return AlignedBlocks(
            rows=rows, block_experts=blocks, used=used, block=block, padding=routed
        )
