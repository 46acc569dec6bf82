"""The adapter of one experts function, called through a model's own experts module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.experts.models import USUAL, Model
from moe_routing.implementations.experts.registered import EAGER, Function
from moe_routing.implementations.experts.unpacking import Named
from moe_routing.implementations.permutes import Permutes
from moe_routing.implementations.shards import shard_of_experts
from moe_routing.implementations.tensors import torch_tensor, without_graph
from moe_routing.implementations.torch_expert_gradients import torch_expert_gradients
from moe_routing.reference import ExpertsConfig, ExpertsInputs, Routes
from moe_routing.reference.formats import Ids

if TYPE_CHECKING:
    from torch import Tensor


class ExpertsFunction:
    """A function of transformers' ExpertsInterface, run by the module that dispatches to it.

    An absent route has the id E and weight 0, as expert parallelism marks it, and the module is
    told that its experts are split.
    """

    wraps = "transformers"

    def __init__(
        self,
        function: Function,
        model: Model,
        device: str = "cpu",
        permutes: Permutes | None = None,
    ) -> None:
        at = "" if model.name == USUAL else f"@{model.name}"
        self.name, self.device = f"experts:{function.name}{at}", device
        self._function, self._model = function, model
        step = function.multiple_of
        self._computes = replace(model.computes, hidden_multiple_of=step, width_multiple_of=step)
        if function.name == EAGER and model.overruns and device != "cpu":
            # a device assert, after which no call of the process succeeds: it cannot be shown
            self._computes = replace(self._computes, absent=(False,))
        self._capabilities = Capabilities(
            computes=self._computes, dtypes=function.dtypes, permutes=permutes or Permutes()
        )

    def capabilities(self) -> Capabilities:
        """Claim what the model's module computes."""
        return self._capabilities

    def experts(self, config: ExpertsConfig, inputs: ExpertsInputs) -> Tensor:
        """Run the module. Errors: ``Unsupported``, ``BackendMissing``."""
        self._computes.require(config, inputs)
        module: Any = self._model.build(config, inputs, self.device)
        module._is_expert_parallel = bool((inputs.expert_ids < 0).any())
        ids = marked(inputs.routes, config.num_experts)
        return run(self._function.run, module, inputs, self.device, ids=ids)

    expert_gradients = torch_expert_gradients

    def unpacked(self, inputs: ExpertsInputs, found: Named) -> Named:
        """Return gradients by the names of ``inputs``, from those of the module's parameters."""
        return self._model.unpacked(inputs, found)

    shard = shard_of_experts


def marked(routes: Routes, num_experts: int) -> Ids:
    """Return the expert ids with E where a route is absent."""
    return np.where(routes.expert_ids < 0, num_experts, routes.expert_ids)


def run(
    function: Callable[..., Any],
    module: Any,
    inputs: ExpertsInputs,
    device: str,
    *,
    ids: Ids | None = None,
) -> Tensor:
    """Return what ``function`` makes of a module, hidden states, ids and weights."""
    given = (
        ("hidden", inputs.hidden, inputs.dtype),
        ("top_k_index", inputs.expert_ids if ids is None else ids, "int64"),
        ("weights", inputs.weights, inputs.dtype),
    )
    tensors = (torch_tensor(name, a, dtype=dtype, device=device) for name, a, dtype in given)
    output: Tensor = without_graph(function)(module, *tensors)
    return output
