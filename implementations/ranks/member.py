"""One rank: a fork of the host that joins the group and answers calls until it is ended."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from moe_routing.implementations import traces
from moe_routing.implementations.protocol import BackendMissing
from moe_routing.implementations.ranks.distributed import Meeting, join
from moe_routing.implementations.unsupported import Unsupported
from moe_routing.reference import ExpertGradients

WHERE = signal.SIGUSR1
"""The signal at which a rank writes where it is to its log."""

_LOOK = 0.5  # seconds between two looks at whether the host is still there


@dataclass(frozen=True, kw_only=True)
class Place:
    """A rank's place: its number of how many, where they meet, on which device, and its log."""

    rank: int
    size: int
    meeting: Meeting
    device: str
    log: Path


def forked(adapter: Any, place: Place, pipe: Connection, inherited: list[Connection]) -> int:
    """Start a rank in a fork of this process, and return its number as a process."""
    host = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        for each in inherited:
            each.close()
        _own_output(place.log)
        threading.Thread(target=_end_without, args=(host,), daemon=True).start()
        _serve(adapter, place, pipe)
    except (EOFError, OSError):
        pass  # the host has ended
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _own_output(log: Path) -> None:
    """Send what is written to the log, and where this process is on request, and at its end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    file = log.open("ab", buffering=0)
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    faulthandler.enable(file)
    faulthandler.register(WHERE, file, all_threads=False)


def _end_without(host: int) -> None:
    """End this process once the host is gone, whatever it is doing."""
    while os.getppid() == host:
        time.sleep(_LOOK)
    os._exit(1)


def _serve(adapter: Any, place: Place, pipe: Connection) -> None:
    try:
        join(place.meeting, place.rank, place.size, place.device)
    except Exception as error:
        pipe.send(("missing", f"Rank {place.rank} cannot join the others: {_words(error)}"))
        raise
    pipe.send(("ready", None))
    while True:
        method, arguments = pipe.recv()
        kind, value = _answer(adapter, method, arguments)
        pipe.send((kind, value))


def _answer(adapter: Any, method: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
    """Return ``answer`` with plain arrays, or ``refused``, ``missing`` or ``raised`` in words."""
    try:
        return "answer", plain(getattr(adapter, method)(*arguments))
    except Unsupported as error:
        return "refused", str(error)
    except BackendMissing as error:
        return "missing", str(error)
    except Exception as error:
        return "raised", f"{_words(error)}{traces.place(error)}"


def _words(error: Exception) -> str:
    words = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {words[:200]}"


def plain(native: Any) -> Any:
    """Return tensors of any device and dtype as NumPy arrays, gradients among them."""
    if isinstance(native, ExpertGradients):
        return ExpertGradients(**{n: plain(each) for n, each in native.arrays().items()})
    if isinstance(native, Mapping):
        return {name: plain(each) for name, each in native.items()}
    if hasattr(native, "detach"):
        tensor = native.detach().cpu()
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy().copy()
    return np.asarray(native) if hasattr(native, "__array__") else native
