"""The adapter of one row: build the model's block, fill it, run it, read the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.differentiates import RouterGradients
from moe_routing.implementations.layouts import DenseRouting
from moe_routing.implementations.tensors import TorchInputs, torch_inputs, without_graph
from moe_routing.implementations.torch_gradients import torch_gradients
from moe_routing.implementations.torch_replay import torch_replay
from moe_routing.implementations.transformers.blocks import build_block, fill_block, run_block
from moe_routing.implementations.transformers.reading import READERS, completed
from moe_routing.implementations.transformers.rows import Row
from moe_routing.reference import Recorded, RouterConfig, RouterInputs, Routing

Answer: TypeAlias = Routing | DenseRouting


class TransformersRouter:
    """A model's router as transformers ships it, run inside its own MoE block."""

    wraps = "transformers"

    def __init__(self, row: Row, device: str = "cpu") -> None:
        self.name = f"transformers:{row.name}"
        self.device = device
        self._row, self._capabilities = row, row.capabilities()
        self.methods = ("route", "gradients", *(("replay",) if row.replays else ()))

    def capabilities(self) -> Capabilities:
        """Claim what the published models of the family have, and what their classes offer."""
        return self._capabilities

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Answer:
        """Run the block. Errors: ``Unsupported``, ``BackendMissing``."""
        return self.prepare(config, inputs)()

    def prepare(self, config: RouterConfig, inputs: RouterInputs) -> Callable[[], Answer]:
        """Build and fill the block. Errors: as ``route``."""
        self.capabilities().require(config, inputs)
        block = build_block(self._row, config, inputs, self.device)
        import torch

        given = torch_inputs(inputs, self.device)
        with torch.no_grad():
            fill_block(self._row, block, given)
        return without_graph(lambda: self._run(block, config, given))

    def gradients(
        self, config: RouterConfig, inputs: RouterInputs, cotangent: npt.NDArray[np.float32]
    ) -> RouterGradients:
        """Return the gradients of the block's router. Errors: as ``route``."""
        return torch_gradients(_WithIds(self), config, inputs, cotangent)

    def replay(self, config: RouterConfig, inputs: RouterInputs, recorded: Recorded) -> Any:
        """Force a record where the router takes its top k. Errors: as ``torch_replay``."""
        return torch_replay(_WithIds(self), config, inputs, recorded)

    def _run(self, block: Any, config: RouterConfig, given: TorchInputs) -> Answer:
        returned, heard = run_block(self._row, block, given)
        answer = READERS[self._row.reads](config, returned, heard)
        return replace(answer, logits=None) if self._row.logits == "none" else answer


class _WithIds:
    """The same router, whose answers all name K experts: dense ones may not, in ``route`` alone."""

    def __init__(self, router: TransformersRouter) -> None:
        self.name, self.capabilities, self._router = router.name, router.capabilities, router

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        return completed(self._router.route(config, inputs), config.top_k)
