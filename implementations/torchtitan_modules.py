"""torchtitan's modules, imported when they are called for, and its counts of tokens."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from moe_routing.implementations.protocol import missing

if TYPE_CHECKING:
    from torch import Tensor

INSTALL = (
    "python -m pip install --no-deps torchtitan==0.3.0 spmd_types==0.2.3 tyro docstring-parser tqdm"
)


def module(name: str) -> ModuleType:
    """Import a module of torchtitan. Errors: ``BackendMissing``."""
    try:
        return importlib.import_module(f"torchtitan.{name}")
    except ModuleNotFoundError as error:
        raise missing("torchtitan", "torchtitan", error, INSTALL) from error


def counts_of(ids: Tensor, num_experts: int) -> Tensor:
    """Return the tokens of each expert, counted as ``MoE.forward`` does: once a token."""
    import torch

    empty = torch.zeros((len(ids), num_experts), dtype=torch.bool, device=ids.device)
    return empty.scatter_(-1, ids, True).sum(dim=0)
