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
    "/implementations/": "the backend",
    "/reference/": "the reference",
    "/conformance/judge/": "the judge",
    "/conformance/generators/": "the generators",
    "/conformance/": "the clauses and the rest of the suite",
    "/hypothesis/": "Hypothesis",
}
"""What the innermost frame of such a path stands for; the first that fits."""

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
        path = frame.f_code.co_filename
        for fragment, part in PARTS.items():
            if fragment in path:
                return part
        frame = frame.f_back
    return _ELSEWHERE
