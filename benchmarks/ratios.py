"""What a verdict costs as a ratio to the eager router of the same call, in turns.

``python benchmarks/ratios.py`` prints a table: medians of processor time, on one thread, and the
memory that a verdict of the largest call allocates beside inputs and answer.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable

import torch
from bench_inputs import LARGE, MANY, MIDDLE, SMALL
from test_stages import TORCH, made

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.judge import Answer, Bounds, judge
from moe_routing.conformance.run.isolation.heap import keep_freed_memory
from moe_routing.conformance.trial.trial import Trial
from moe_routing.implementations import Numerics

ROUNDS = {SMALL: 201, MIDDLE: 21, LARGE: 5, MANY: 5}
"""How often each call is routed and judged."""


def main(given: list[str]) -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__).parse_args(given)
    torch.set_num_threads(1)
    keep_freed_memory()
    print("| | plain | grouped |\n|---|---|---|")
    for size, rounds in ROUNDS.items():
        cells = [ratio(made(size, grouped), rounds) for grouped in (False, True)]
        print(f"| {size} | {cells[0]:.2f} | {cells[1]:.2f} |", flush=True)
    print(f"\n{peak(made(MANY, False)) / 2**20:.0f} MiB at {MANY}, plain")


def ratio(case: Case, rounds: int) -> float:
    """Return the median time of a verdict from nothing over that of the router."""
    route, decide = TORCH.prepare(case.config, case.inputs), verdict(case)
    times = [(timed(route), timed(decide)) for _ in range(rounds + 1)][1:]
    eager, judged = (statistics.median(each) for each in zip(*times, strict=True))
    return judged / eager


def verdict(case: Case) -> Callable[[], bool]:
    """Return what judges the router's answer to a case, from nothing."""
    answer: Answer = Trial(TORCH, case).received.answer
    return lambda: (
        judge(Bounds(case.config, case.inputs, Numerics()), answer, logits="routed").right
    )


def timed(call: Callable[[], object]) -> float:
    """Return the processor time of a call."""
    began = time.process_time()
    call()
    return time.process_time() - began


def peak(case: Case) -> int:
    """Return the most bytes that a verdict holds at a time."""
    decide = verdict(case)
    tracemalloc.start()
    decide()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


if __name__ == "__main__":
    main(sys.argv[1:])
