"""A sampler: in which part of the suite the processor's time goes."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STEP = 0.001
"""The processor's seconds between two samples."""

PARTS = {
    "moe_routing.implementations": "the backend",
    "moe_routing.reference": "the reference",
    "moe_routing.conformance.judge": "the judge",
    "moe_routing.conformance.generators": "the generators",
    "moe_routing.conformance": "the clauses and the rest of the suite",
    "hypothesis": "Hypothesis",
}
"""What the innermost frame of such a package stands for; the first that fits."""

_ELSEWHERE = "everything else"


@contextmanager
def sampled() -> Iterator[Counter[str]]:
    """Count, inside the block, the samples that fall into each part.

    A signal that arrives within compiled code is handled after it, in the frame that called
    it: so NumPy's time is its caller's.
    """
    found: Counter[str] = Counter()
    before = signal.signal(signal.SIGPROF, lambda number, frame: found.update([part_of(frame)]))
    signal.setitimer(signal.ITIMER_PROF, STEP, STEP)
    try:
        yield found
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)


def part_of(frame: FrameType | None) -> str:
    """Return the part that the innermost frame of any part belongs to."""
    while frame is not None:
        module = f"{frame.f_globals.get('__name__')}."
        for package, part in PARTS.items():
            if module.startswith(f"{package}."):
                return part
        frame = frame.f_back
    return _ELSEWHERE
