"""The state of a process: what an adapter may have changed without the suite's knowledge."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class ProcessState:
    """The working directory, the signal handlers, and NumPy's functions."""

    folder: str
    handlers: dict[int, Any]
    functions: dict[str, Any]


def current() -> ProcessState:
    """Read the state."""
    return ProcessState(
        folder=os.getcwd(),
        handlers={number: signal.getsignal(number) for number in signal.valid_signals()},
        functions={f"{m.__name__}.{k}": v for m in (np, np.linalg) for k, v in vars(m).items()},
    )


def restore(before: ProcessState) -> list[str]:
    """Restore the working directory and signal handlers; return NumPy's replaced functions.

    Functions are not restored: what was computed with others cannot be trusted any more.
    """
    os.chdir(before.folder)
    for number, handler in before.handlers.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)
    now = current().functions
    return sorted(n for n, value in before.functions.items() if now.get(n) is not value)
