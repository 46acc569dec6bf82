"""Isolation: each adapter in a process of its own, so that none can end or spoil the run.

``process`` starts a worker and speaks to it, ``worker`` is what runs there, ``seat`` turns
the end of a worker into a verdict, ``watch`` says how long and how much a worker may take,
``state`` tells what an adapter did to the process that it was given.
"""

from moe_routing.conformance.run.isolation.isolated import Isolated
from moe_routing.conformance.run.isolation.watch import Watch

__all__ = ["Isolated", "Watch"]
