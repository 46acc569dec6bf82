"""The starter: a process that has imported what every worker needs, and forks for each of them.

A fork starts in milliseconds, and the imports take half a second. No adapter, no framework and no
thread of Python's is ever in the starter, so that none is lost in a fork. Each worker has a guard,
its parent, which reports its end and keeps its number in use until the run has read that.
"""

from __future__ import annotations

import gc
import os
import signal
import socket

import numpy as np

from moe_routing.conformance.run.isolation import worker

PIPES = 5
"""What comes for a worker: its input, output, log and working directory, and its guard's socket."""


def main() -> None:
    """Fork for each message, until the run ends; a worker goes on as if it were started anew."""
    run = _own_socket()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for guards
    gc.freeze()  # a collection would copy the memory that forks share
    while True:
        word, pipes, _, _ = socket.recv_fds(run, 1, PIPES)
        if not word:
            return
        if os.fork() == 0:
            run.close()
            break
        for pipe in pipes:
            os.close(pipe)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    guard = socket.socket(fileno=pipes.pop())
    if os.fork() != 0:
        _guard(guard, pipes)
    _become_a_worker(guard, *pipes)
    worker.main()


def _own_socket() -> socket.socket:
    """Return the socket of the run, and leave none to guards: they outlive the starter."""
    run, nothing = socket.socket(fileno=os.dup(0)), os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return run


def _guard(run: socket.socket, pipes: list[int]) -> None:
    """Report the end of the worker, keep its number until the run is done with it, and end."""
    try:
        for pipe in pipes:  # the run is to see that the worker has closed them
            os.close(pipe)
        end = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        if end is not None:
            code = end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
            run.sendall(b"%d\n" % code)
        run.recv(1)
    finally:
        os._exit(0)


def _become_a_worker(guard: socket.socket, *pipes: int) -> None:
    """Take the pipes of a new process, and what it would have of its own; then say its number."""
    os.setsid()
    *standard, folder = pipes
    for number, pipe in enumerate(standard):
        os.dup2(pipe, number)
    os.fchdir(folder)
    for pipe in pipes:
        os.close(pipe)
    np.random.seed()  # noqa: NPY002  an adapter may draw from it; Python's seeds itself in a fork
    guard.sendall(b"%d\n" % os.getpid())
    guard.close()


if __name__ == "__main__":
    main()
