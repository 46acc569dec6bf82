"""The options about where adapters run, shared by the commands that run them."""

from __future__ import annotations

import argparse
import gc
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moe_routing.conformance.checking.plan import Plan
    from moe_routing.conformance.run.seat import Seat
    from moe_routing.implementations import Adapter


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``, ``--no-isolate``, ``--timeout`` and ``--memory``."""
    parser.add_argument("--device", default="cpu", metavar="cpu|cuda")
    parser.add_argument(
        "--no-isolate",
        action="store_true",
        help="run adapters in this process, for a debugger; a crash then ends the run",
    )
    parser.add_argument(
        "--timeout",
        type=amount,
        default=60.0,
        metavar="SECONDS",
        help="time limit for one call; default: 60",
    )
    parser.add_argument(
        "--memory",
        type=amount,
        metavar="GIB",
        help="memory limit for an adapter's process; default: most of what is free",
    )


def add_ranks(parser: argparse.ArgumentParser) -> None:
    """Add ``--ranks``."""
    parser.add_argument(
        "--ranks",
        type=several,
        metavar="N",
        help="run the adapter as N ranks of torch.distributed, gloo or on GPUs NCCL: see "
        "docs/ranks.md",
    )


def several(text: str) -> int:
    """Read an integer of 2 or more."""
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"must be 2 or more, not {text}: one rank sends nothing")
    return int(text)


def amount(text: str) -> float:
    """Read a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text}")
    return value


def seats(
    references: Sequence[str], plan: Plan, arguments: argparse.Namespace, *, jobs: int = 1
) -> dict[str, Callable[[], Seat]]:
    """Return what opens a seat for each adapter; families and globs name many.

    The shipped known divergences apply to shipped adapters only, not to others of the same
    name. Errors: ``AdapterError`` for unknown ones.
    """
    from moe_routing.conformance.run.isolation import Isolated, Watch
    from moe_routing.conformance.run.isolation.watch import fair_threads
    from moe_routing.conformance.run.seat import InProcess
    from moe_routing.implementations import expand, is_shipped

    device, ranks = arguments.device, getattr(arguments, "ranks", None)
    named = [name for reference in references for name in expand(reference, device=device)]
    seconds = arguments.timeout
    plans = {each: plan if is_shipped(each) else plan.unshipped() for each in named}
    others = _others(arguments)
    if arguments.no_isolate or others is not None:
        loads = {each: partial(_kept, each, device, ranks, seconds, others) for each in named}
        return {each: partial(InProcess, load, plans[each]) for each, load in loads.items()}
    memory = _memory(arguments.memory, jobs)
    watch = Watch(call_seconds=seconds, memory=memory, threads=fair_threads(jobs))
    return {
        each: partial(Isolated, each, plans[each], device=device, watch=watch, ranks=ranks)
        for each in named
    }


def _kept(*of_adapter: Any) -> Adapter:
    """Load an adapter; no collection of garbage looks through what it has imported again."""
    from moe_routing.conformance.run.seat import loaded

    adapter = loaded(*of_adapter)
    gc.freeze()
    return adapter


def _others(arguments: argparse.Namespace) -> Any:
    """Return the other ranks of a launcher, where one has started this process, or None."""
    if getattr(arguments, "launch", None) is None:
        return None
    from moe_routing.implementations.ranks import Others

    return Others(arguments.launch)


def files_of_command(reference: str) -> list[Path]:
    """Return the files that the command of a ``process:`` adapter names, its program's too."""
    from moe_routing.implementations.registry import PROCESS

    prefix, _, command = reference.partition(":")
    words = shlex.split(command) if prefix == PROCESS else []
    return [Path(word) for word in words if Path(word).is_file()]


def _memory(given: float | None, jobs: int) -> int | None:
    """Return what each of several workers may take, in bytes; None where nothing is known."""
    from moe_routing.conformance.run.isolation.watch import available_memory

    if given is not None:
        return int(min(given * 2**30, sys.maxsize))  # no machine has as much
    free = available_memory()
    return None if free is None else free // jobs
