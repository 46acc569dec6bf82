"""Adapters that harm the process they run in, in calls of several experts and any tokens.

Named on the command line as ``hostile_adapters.py:Name``; right routers otherwise.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from typing import Any

import numpy as np

from moe_routing.implementations import Capabilities
from moe_routing.reference import RouterConfig, RouterInputs, Routing, route


class Tame:
    """The reference router, in need of no isolation; what follows overrides ``harm``."""

    name = "tame"
    fewest = 4

    def capabilities(self) -> Capabilities:
        return Capabilities(logits="routed")

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        right = route(RouterConfig(**vars(config)), inputs)
        if config.num_experts >= self.fewest and inputs.num_tokens:
            self.harm()
        return right

    def harm(self) -> None:
        return


class Segfaults(Tame):
    """Reads from address 0."""

    name = "segfaults"

    def harm(self) -> None:
        ctypes.string_at(0)


class Aborts(Tame):
    """Calls abort, as a failed assertion of a C library does."""

    name = "aborts"

    def harm(self) -> None:
        os.write(2, b"gate.cu:12: no room\n")
        os.abort()


class Exits(Tame):
    """Ends the process at once, and claims success."""

    name = "exits"

    def harm(self) -> None:
        os._exit(0)


class Hangs(Tame):
    """Never returns."""

    name = "hangs"

    def harm(self) -> None:
        time.sleep(3600)


class HangsDeaf(Tame):
    """Never returns, and ignores every signal that can be ignored."""

    name = "hangs-deaf"

    def harm(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        time.sleep(3600)


class Leaks(Tame):
    """Keeps 256 MiB more with every call."""

    name = "leaks"
    fewest = 1

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def harm(self) -> None:
        self.kept.append(np.ones(2**25))
        time.sleep(0.25)


class Prints(Tame):
    """Writes to both outputs, through Python and past it."""

    name = "prints"
    fewest = 1

    def harm(self) -> None:
        print("x" * 100_000)
        print("noise", file=sys.stderr)
        os.write(1, b"\x00\xff" * 1000)
        sys.stdout.flush()


class ReadsInput(Tame):
    """Waits for a line of its standard input."""

    name = "reads-input"
    fewest = 1

    def harm(self) -> None:
        sys.stdin.readline()


class ClosesOutput(Tame):
    """Closes the standard streams."""

    name = "closes-output"
    fewest = 1

    def harm(self) -> None:
        for number in (0, 1, 2):
            os.close(os.dup(number))
        sys.stdout.close()


class SpawnsThreads(Tame):
    """Leaves threads behind that never end, and would keep the process alive."""

    name = "spawns-threads"
    fewest = 1
    left = 4

    def harm(self) -> None:
        if self.left:
            self.left -= 1
            threading.Thread(target=time.sleep, args=(3600,)).start()


class ChangesFloatMode(Tame):
    """Sets NumPy's error handling and leaves it."""

    name = "changes-float-mode"
    fewest = 1

    def harm(self) -> None:
        np.seterr(all="raise")


class ChangesFolder(Tame):
    """Leaves the process in another folder."""

    name = "changes-folder"
    fewest = 1

    def harm(self) -> None:
        os.chdir("/")


class TakesSignals(Tame):
    """Installs signal handlers and a timer that would end the process."""

    name = "takes-signals"
    fewest = 1

    def harm(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)


class ReplacesNumpy(Tame):
    """Replaces a function of NumPy that the suite, too, computes with."""

    name = "replaces-numpy"

    def harm(self) -> None:
        before = np.sort
        np.sort = lambda *given, **more: before(*given, **more)


class RemovesNumpy(Tame):
    """Replaces a function of NumPy by one that raises."""

    name = "removes-numpy"

    def harm(self) -> None:
        def gone(*given: Any, **more: Any) -> Any:
            raise RuntimeError("no more sorting")

        np.sort = np.argsort = np.where = gone


class SegfaultsInCapabilities(Tame):
    """Dies outside any call, the third time that its claims are read."""

    name = "segfaults-in-capabilities"
    reads = 0

    def capabilities(self) -> Capabilities:
        self.reads += 1
        if self.reads > 2:
            ctypes.string_at(0)
        return super().capabilities()


class SegfaultsOnce(Tame):
    """Dies in its third call, whatever that is."""

    name = "segfaults-once"
    fewest = 1
    calls = 0

    def harm(self) -> None:
        self.calls += 1
        if self.calls == 3:
            ctypes.string_at(0)
