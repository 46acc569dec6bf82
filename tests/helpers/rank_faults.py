"""One rank of an adapter, right, and wrong in many ways: each a method to call in its place."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from typing import Any

import numpy as np

from moe_routing.implementations import Capabilities, Unsupported
from moe_routing.implementations.torch_expert_gradients import torch_rank_gradients
from moe_routing.implementations.torch_on_rank import run_on_rank
from moe_routing.reference import ExpertsConfig, ExpertsInputs, Placement


class Ranked:
    """The eager ranks of torch, and what goes wrong on one of them."""

    name = "ranked"

    def capabilities(self) -> Capabilities:
        return Capabilities()

    def on_rank(
        self, config: ExpertsConfig, inputs: ExpertsInputs, placement: Placement, rank: int
    ) -> Any:
        return run_on_rank(config, inputs, placement)

    rank_gradients = torch_rank_gradients

    def offset(self, config: Any, inputs: Any, placement: Any, rank: int) -> Any:
        """Run experts by their ids over all ranks as if they were local: the last has none."""
        first = placement.num_experts - int((placement.rank_of == rank).sum())
        return self.on_rank(config, inputs, placement, rank) * float(rank == 0 or first == 0)

    def reduced(self, config: Any, inputs: Any, placement: Any, rank: int) -> Any:
        """All-reduce what has been combined."""
        from torch import distributed as dist

        output = self.on_rank(config, inputs, placement, rank)
        most = output.new_tensor(len(output)).long()
        dist.all_reduce(most, dist.ReduceOp.MAX)
        padded = output.new_zeros(int(most), output.shape[1])
        padded[: len(output)] = output
        dist.all_reduce(padded)
        return padded[: len(output)]

    def remainder(self, config: Any, inputs: Any, placement: Any, rank: int) -> Any:
        """Leave routes out to the experts that a division of experts by ranks leaves over."""
        least = config.num_experts // placement.num_ranks * placement.num_ranks
        lost = inputs.expert_ids >= least
        ids, weights = np.where(lost, -1, inputs.expert_ids), np.where(lost, 0, inputs.weights)
        kept = replace(inputs, expert_ids=ids, weights=weights.astype(np.float32))
        return self.on_rank(config, kept, placement, rank)

    def idle(self, config: Any, inputs: Any, placement: Any, rank: int) -> Any:
        """Lose the last token where another rank has none."""
        import torch

        counts = torch.tensor([inputs.num_tokens])
        torch.distributed.all_reduce(counts, torch.distributed.ReduceOp.MIN)
        output = self.on_rank(config, inputs, placement, rank)
        if len(output) and not int(counts):
            output[-1] = 0
        return output

    def sleeps(self, config: Any, inputs: Any, placement: Any, rank: int) -> Any:
        """Stay away from the collective for ever, on the last rank."""
        if rank == placement.num_ranks - 1:
            time.sleep(1000.0)
        return run_on_rank(config, inputs, placement)

    def skips(self, config: Any, inputs: Any, placement: Any, rank: int) -> Any:
        """Answer at once where there is no token, while others wait."""
        if not inputs.num_tokens:
            return np.zeros_like(inputs.hidden)
        return self.on_rank(config, inputs, placement, rank)

    def dies(self, config: Any, inputs: Any, placement: Any, rank: int) -> Any:
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.on_rank(config, inputs, placement, rank)

    def exits(self, config: Any, inputs: Any, placement: Any, rank: int) -> Any:
        if rank == 1:
            print("out of luck", flush=True)
            raise SystemExit(7)
        return self.on_rank(config, inputs, placement, rank)

    def raises(self, config: Any, inputs: Any, placement: Any, rank: int) -> Any:
        if rank == 1:
            raise ValueError("no such expert")
        return self.on_rank(config, inputs, placement, rank)

    def refuses(self, config: Any, inputs: Any, placement: Any, rank: int) -> Any:
        raise Unsupported("not claimed: anything")

    def refuses_alone(self, config: Any, inputs: Any, placement: Any, rank: int) -> Any:
        if rank == 1:
            raise Unsupported("not claimed: anything")
        return inputs.hidden


class Hangs(Ranked):
    """Ranks whose last one never comes to the collective."""

    name = "hangs"
    on_rank = Ranked.sleeps


class Lonely:
    """An adapter that has no method for a rank."""

    name = "lonely"

    def capabilities(self) -> Capabilities:
        return Capabilities()

    def experts(self, config: Any, inputs: Any) -> Any:
        return inputs.hidden
