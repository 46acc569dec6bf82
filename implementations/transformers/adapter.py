"""The adapter of one row: build the model's block, fill it, run it, read the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.tensors import TorchInputs, torch_inputs, without_graph
from moe_routing.implementations.torch_gradients import torch_gradients
from moe_routing.implementations.torch_replay import torch_replay
from moe_routing.implementations.transformers.blocks import build_block, fill_block, run_block
from moe_routing.implementations.transformers.reading import READERS
from moe_routing.implementations.transformers.rows import Row
from moe_routing.reference import RouterConfig, RouterInputs, Routing


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

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        """Run the block. Errors: ``Unsupported``, ``BackendMissing``."""
        return self.prepare(config, inputs)()

    def prepare(self, config: RouterConfig, inputs: RouterInputs) -> Callable[[], Routing]:
        """Build and fill the block. Errors: as ``route``."""
        self.capabilities().require(config, inputs)
        block = build_block(self._row, config, inputs, self.device)
        import torch

        given = torch_inputs(inputs, self.device)
        with torch.no_grad():
            fill_block(self._row, block, given)
        return without_graph(lambda: self._run(block, config, given))

    gradients = torch_gradients
    replay = torch_replay

    def _run(self, block: Any, config: RouterConfig, given: TorchInputs) -> Routing:
        returned, heard = run_block(self._row, block, given)
        answer = READERS[self._row.reads](config, returned, heard)
        if self._row.logits == "none":
            return Routing(weights=answer.weights, expert_ids=answer.expert_ids)
        return answer
