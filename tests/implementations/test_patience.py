"""What counts against the limit of a call: neither a busy machine nor a suspended one."""

from __future__ import annotations

import os
from multiprocessing.connection import Pipe

import pytest

from moe_routing.implementations.patience import Patience, waits_of
from moe_routing.implementations.ranks import group

WORKER = 7


class Machine:
    """A clock, and what the threads of a worker have waited for a processor."""

    def __init__(self) -> None:
        self.now, self.waits = 100.0, {"old": 50.0}

    def patience(self) -> Patience:
        return Patience(WORKER, clock=lambda: self.now, waits=lambda _: dict(self.waits))

    def late(self, patience: Patience, seconds: float, waiting: float = 0.0) -> bool:
        """Let time pass in tenths of a second, and return whether 60 seconds were exceeded."""
        late = False
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            self.waits["old"] += 0.1 * waiting
            late = patience.exceeds(60.0)
        return late


def test_a_call_that_hangs_is_late_after_its_limit() -> None:
    machine = Machine()
    patience = machine.patience()
    assert not machine.late(patience, 59.0)
    assert machine.late(patience, 2.0)


def test_what_a_worker_waited_for_a_processor_does_not_count() -> None:
    machine = Machine()
    patience = machine.patience()
    assert not machine.late(patience, 200.0, waiting=0.8), "it had 40 seconds of its own"
    assert machine.late(patience, 22.0)


def test_the_thread_that_waited_longest_counts_and_not_all_of_them() -> None:
    machine = Machine()
    patience = machine.patience()
    assert not machine.late(patience, 0.1)
    machine.waits |= {f"new {each}": 20.0 for each in range(8)}
    assert not machine.late(patience, 79.0)
    assert machine.late(patience, 2.0)


def test_a_machine_that_was_suspended_has_taken_a_second() -> None:
    machine = Machine()
    patience = machine.patience()
    machine.now += 8 * 3600.0
    assert not patience.exceeds(60.0)
    assert machine.late(patience, 60.0)


def test_nothing_is_excused_for_ever() -> None:
    machine = Machine()
    patience = machine.patience()
    assert not machine.late(patience, 599.0, waiting=1.0)
    assert machine.late(patience, 2.0, waiting=1.0)


def test_the_threads_of_a_session_are_read() -> None:
    found = waits_of(os.getsid(0))
    if not os.path.exists("/proc/self/schedstat"):
        pytest.skip("this machine does not measure what threads wait for")
    assert str(os.getpid()) in found
    assert min(found.values()) >= 0.0


def test_of_a_worker_that_has_ended_nothing_is_known() -> None:
    assert waits_of(2**22 + 1) == {}


def test_what_ranks_wait_for_a_processor_is_not_their_time(monkeypatch) -> None:
    looks = iter([False, False, True])

    class Busy:
        def __init__(self, leader: int) -> None:
            assert leader == os.getsid(0)

        def exceeds(self, limit: float) -> bool:
            return next(looks)

    monkeypatch.setattr(group, "Patience", Busy)
    ours, _theirs = Pipe()
    ranks = group.Group([group.Remote(ours, [0])], 1, 0.01, lambda: None)
    assert ranks.call("on_rank", [()]).late
    assert next(looks, None) is None, "it was looked at until the time was up"
