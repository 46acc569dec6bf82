"""Replay for any torch router: its own route, whose choice of experts is replaced by a record."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from moe_routing.implementations.replays import Replays
from moe_routing.reference import Recorded, RouterConfig, RouterInputs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

FORCED = Replays(weights=(False,), absent=(False,), masked=(False,))
"""What ``torch_replay`` can do: it forces ids, and leaves the weights to the router."""


def torch_replay(
    adapter: Any, config: RouterConfig, inputs: RouterInputs, recorded: Recorded
) -> Any:
    """Return the adapter's routing at recorded experts, forced where it takes its top k.

    One line makes a torch adapter replay, ``replay = torch_replay``; ``FORCED`` are its claims.
    It runs the adapter's own ``route`` and answers each ``topk`` of K among all experts with the
    record, and the values with what the router has there. Errors: those of ``route``;
    ``Unsupported`` for a record that is not claimed, ``RuntimeError`` for a router that takes no
    top k of its experts.
    """
    adapter.capabilities().replays.require(config, recorded)
    if recorded.layer is None:
        return adapter.route(config, inputs)
    if inputs.expert_table is not None:  # a record of its own, which is replaced
        inputs = replace(inputs, expert_table=None, token_ids=None)
    with forcing(recorded.ids, config.num_experts) as forced:
        routing = adapter.route(config, inputs)
    if not forced and recorded.num_tokens:
        raise RuntimeError(
            f"{adapter.name} took no topk of {config.top_k} among {config.num_experts} experts: "
            "nothing was replayed"
        )
    return routing


@contextmanager
def forcing(ids: Any, num_experts: int) -> Iterator[list[int]]:
    """Answer ``torch.topk`` of K among all experts with ``ids [T, K]``; collect the calls."""
    import torch
    from torch.overrides import TorchFunctionMode

    calls: list[int] = []
    recorded = np.array(ids)

    class Forcing(TorchFunctionMode):
        """Replaces the choice of experts."""

        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if function in (torch.topk, torch.Tensor.topk):
                found = _choice(*args, **(kwargs or {}))
                if found is not None:
                    calls.append(len(recorded))
                    return found
            return function(*args, **(kwargs or {}))

    def _choice(
        values: Tensor, k: int, dim: int = -1, largest: bool = True, **_: Any
    ) -> Any | None:
        whole = values.dim() > 1 and values.shape[-1] == num_experts and largest
        last = dim in (-1, values.dim() - 1)
        if not (whole and last and k == recorded.shape[1]):
            return None
        if values.numel() != len(recorded) * num_experts:
            return None
        places = torch.from_numpy(recorded).to(values.device).view(*values.shape[:-1], k)
        return torch.return_types.topk((values.gather(-1, places), places))

    with Forcing():
        yield calls
