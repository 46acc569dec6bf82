"""Isolation: each adapter in a process of its own, so that none can end or spoil the run.

``start`` starts a worker, on Linux as a fork of ``starter``; ``process`` sends it requests,
``worker`` is what runs there, ``isolated`` turns the end of a worker into a verdict, ``watch``
limits its time and memory, ``state`` finds what an adapter changed in its process.
"""

from moe_routing.conformance.run.isolation.isolated import Isolated
from moe_routing.conformance.run.isolation.watch import Watch

__all__ = ["Isolated", "Watch"]
