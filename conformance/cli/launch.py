"""Ranks that a launcher such as torchrun has started: this command runs in each of them."""

from __future__ import annotations

import argparse
import os

from moe_routing.conformance.cli.options import UsageError


def is_another_rank(arguments: argparse.Namespace) -> bool:
    """Return whether this process is a rank of a launcher's but the first, once that has ended.

    The first learns how many there are. Errors: ``UsageError``, ``AdapterError``.
    """
    arguments.launch = None
    if "MASTER_ADDR" not in os.environ:  # at once, without an import
        return False
    from moe_routing.implementations.ranks import launch_of, serve

    launch = launch_of(os.environ)
    if launch is None:
        return False
    if arguments.ranks not in (None, launch.size):
        raise UsageError(
            f"--ranks {arguments.ranks} with {launch.size} processes of a launcher "
            f"(WORLD_SIZE): leave --ranks out"
        )
    if getattr(arguments, "jobs", 1) > 1:
        raise UsageError("--jobs above 1 needs ranks of its own: leave it out under a launcher")
    if launch.rank:
        serve()
        return True
    arguments.ranks, arguments.launch = launch.size, launch
    return False
