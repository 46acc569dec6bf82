"""Several calls of a backend that share something: the arrays, or the time."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.calls.memory import Reused, with_fresh_arrays
from moe_routing.conformance.trial.call import Call, called
from moe_routing.conformance.trial.noted import noted
from moe_routing.implementations import Adapter

_ROUNDS = 16
"""How often each of the threads calls."""

_SWITCH = 1e-6
"""The seconds after which a thread may be interrupted: as often as Python can."""


def calls_in_place(adapter: Adapter, method: str, *cases: AnyCase) -> list[Call]:
    """Make one call after another in the same arrays, which are overwritten in between.

    The arrays of all cases have the same shapes, types and strides. Errors: ``Raised``.
    """
    arrays = Reused(cases[0].inputs)
    return [called(adapter, method, case, arrays.holding(case.inputs)) for case in cases]


def calls_at_once(adapter: Adapter, method: str, cases: Sequence[AnyCase]) -> list[list[Call]]:
    """Make the calls of each case in a thread of its own, all at the same time.

    Errors: ``Raised``, by the first call that raised.
    """
    start = threading.Barrier(len(cases))

    def calls(case: AnyCase) -> list[Call]:
        start.wait()
        return [
            called(adapter, method, case, with_fresh_arrays(case.inputs)) for _ in range(_ROUNDS)
        ]

    with noted(cases[0]), _switching_often(), ThreadPoolExecutor(len(cases)) as threads:
        return [each.result() for each in [threads.submit(calls, case) for case in cases]]


@contextmanager
def _switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
