"""Running a router of mlx-lm: its gate, or its whole block around probing experts."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

from moe_routing.implementations.capabilities import Limits
from moe_routing.implementations.claims import Claim
from moe_routing.implementations.foreign_arrays import array_inputs
from moe_routing.implementations.functions import Family
from moe_routing.implementations.probing import stacked_routes
from moe_routing.implementations.protocol import missing
from moe_routing.implementations.tensors import TorchInputs
from moe_routing.implementations.transformers.settings import spelled
from moe_routing.reference import RouterConfig, RouterInputs, Routing

INSTALL = "python -m pip install 'mlx[cpu]' && python -m pip install --no-deps mlx-lm"
_SHARED = ("shared_expert", "shared_experts", "share_expert", "shared_mlp", "shared_expert_gate")


def mlx_inputs(inputs: RouterInputs, device: str) -> TorchInputs:
    """Make the arrays of a routing call in MLX. Errors: ``BackendMissing``."""
    return array_inputs(inputs, library("mlx.core"))


FAMILY = Family("mlx-lm", "mlx-lm", arrays=mlx_inputs)
"""The adapters of mlx-lm."""


def _model(name: str) -> ModuleType:
    return library(f"mlx_lm.models.{name}")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One router: its class as ``file.Class``, where its arrays go, its claims.

    ``experts`` is the attribute of a block's experts, empty for a gate that returns ids and
    weights itself; a block that ``reshapes`` gives its output the width of a token. ``settings``
    are what its configuration has besides the sizes. ``positional`` names the settings that the
    class takes, ``args`` being all of them; ``module`` imports a model's file.
    """

    name: str
    block: str
    claims: tuple[Claim, ...]
    gate: str = "weight"
    bias: str = "e_score_correction_bias"
    experts: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    reshapes: bool = False
    positional: tuple[str, ...] = ("args",)
    others: Mapping[str, str] = field(default_factory=dict)
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    module: Callable[[str], ModuleType] = _model

    def add_to(self, family: Family) -> None:
        """Add the adapter of this row."""
        rules = [rule for claim in self.claims for rule in claim.groups if rule is not None]
        best_two = any(2 in rule.top for rule in rules)  # ``mx.topk`` of 2 of every group
        limits = {"limits": Limits(min_group_size=2)} if best_two else {}
        family.add(self.name, self.call, *self.claims, **{**limits, **self.capabilities})

    def call(self, config: RouterConfig, given: TorchInputs) -> Routing:
        """Build the block, fill it, and run it on one sequence."""
        block = self._block(config, given)
        hidden = given.hidden[None]
        if not self.experts:
            ids, weights = block(hidden)[:2]
            return Routing(weights=weights[0], expert_ids=ids[0])
        width = given.hidden.shape[1] if self.reshapes else None

        def run(experts: Any) -> Any:
            setattr(block, self.experts, lambda x, ids, *others: experts(ids))
            return block(hidden)

        mx = library("mlx.core")
        return stacked_routes(run, top_k=config.top_k, library=mx, width=width)

    def _block(self, config: RouterConfig, given: TorchInputs) -> Any:
        file, _, name = self.block.partition(".")
        made = getattr(self.module(file), name)
        values = {**_settings(config, given), **self.settings}
        values["model_dim"] = values["hidden_size"]
        values["moe_router_scaling_factor"] = config.scale
        values["norm_expert_weight"] = values["route_norm"] = config.renormalize is not None
        values["args"] = SimpleNamespace(**values)
        block = made(*(values[each] for each in self.positional))
        for shared in _SHARED:
            if getattr(block, shared, None) is not None:
                setattr(block, shared, lambda x: 0)
        arrays = {self.gate: given.gate_weight, self.bias: given.selection_bias}
        arrays |= {path: getattr(given, name) for path, name in self.others.items()}
        for path, array in arrays.items():
            _put(block, path, array)
        return block


def _settings(config: RouterConfig, given: TorchInputs) -> dict[str, Any]:
    """Return the settings of a tiny model that routes so, in the spelling of every class."""
    tokens, hidden = given.hidden.shape
    sizes = {"hidden_size": hidden, "num_tokens": tokens, "expert_table": None}
    said = SimpleNamespace(**sizes, gate_bias=given.gate_bias, selection_bias=given.selection_bias)
    count, kept = (config.groups.count, config.groups.kept) if config.groups else (1, 1)
    method = "noaux_tc" if config.score == "sigmoid" else "greedy"
    own = {"n_group": count, "num_expert_group": count, "topk_group": kept, "topk_method": method}
    if config.groups is not None and config.groups.top == 1:
        own["topk_method"] = "group_limited_greedy"
    return {**spelled(config, said), **own}


def _put(block: Any, path: str, array: Any) -> None:
    *owners, name = path.split(".")
    for each in owners:
        block = getattr(block, each)
    if array is not None:
        setattr(block, name, array)
    elif (
        name == "bias" and name in block
    ):  # a linear layer's, which is drawn; a checkpoint without one holds zeros
        block[name] = block[name] * 0


@cache
def library(name: str) -> ModuleType:
    """Import a module of mlx or of mlx-lm. Errors: ``BackendMissing``.

    ``mx.compile`` is turned off: on a CPU it starts a compiler of C++ for every shape.
    """
    try:
        mx = importlib.import_module("mlx.core")
        found = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise missing("mlx-lm", name.partition(".")[0], error, INSTALL) from error
    mx.disable_compile()
    return found
