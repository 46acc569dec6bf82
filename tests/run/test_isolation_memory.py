"""Memory of workers: counted once where processes share it, and kept where it was freed."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys

import pytest

from moe_routing.conformance.run.isolation.watch import Memory, session_of


@pytest.mark.skipif(platform.system() != "Linux", reason="memory is watched on Linux")
def test_memory_that_processes_share_counts_once() -> None:
    text = (
        "import os, time\n"
        "kept = b'x' * 2**28\n"
        "children = [os.fork() for _ in range(2)]\n"  # four processes in all
        "os.write(1, b'ready')\n"
        "time.sleep(60)\n"
    )
    leader = subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert leader.stdout.read(20) == b"ready" * 4
        assert len(session_of(leader.pid)) == 4
        memory = Memory(leader.pid)
        assert memory.exceeds(2**28), "what is held should be seen"
        assert not memory.exceeds(2**29), "and what is shared not be taken for more"
    finally:
        os.killpg(leader.pid, signal.SIGKILL)
        leader.communicate()


HELD_PAGES = """
import resource
import numpy
from moe_routing.conformance.run.isolation.heap import keep_freed_memory

keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    numpy.ones(2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_worker_keeps_the_memory_that_it_frees() -> None:
    done = subprocess.run([sys.executable, "-c", HELD_PAGES], capture_output=True, text=True)
    assert int(done.stdout) < 64, f"pages made anew: {done.stdout}{done.stderr}"
