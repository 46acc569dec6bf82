"""Ranks: an adapter of one rank, run on several under torch.distributed as one adapter of all.

``adapter`` is what the suite calls, ``group`` the processes behind it, ``host`` the process that
loads the adapter once and forks its ranks, ``member`` one of them, ``distributed`` where it joins
torch.distributed, and ``launched`` finds the ranks that torchrun has started.
"""

from moe_routing.implementations.ranks.adapter import OnRanks
from moe_routing.implementations.ranks.launched import Launch, Others, launch_of, serve

__all__ = ["Launch", "OnRanks", "Others", "launch_of", "serve"]
