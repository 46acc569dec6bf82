"""What a verdict on a layer's experts costs as a ratio to transformers' eager layer, in turns.

``python benchmarks/layer_ratios.py`` prints a table: medians of processor time of five calls, on
one thread, whether a right answer went through without any radius, and the memory that a verdict
of the largest call allocates beside inputs and answer.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tracemalloc

import torch
from ratios import timed
from test_experts import case, eager

from moe_routing.conformance.judge.experts import Layer
from moe_routing.conformance.run.isolation.heap import keep_freed_memory
from moe_routing.reference.formats import INPUT_FORMATS

SIZES = (
    (256, 64, 8, 512, 256),
    (1024, 64, 8, 1024, 512),
    (256, 8, 2, 2048, 1024),
    (16, 64, 8, 1024, 512),
)
ROUNDS = 5


def main(given: list[str]) -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__).parse_args(given)
    torch.set_num_threads(1)
    keep_freed_memory()
    print("| T, E, K, H, F | | dtype | eager | the verdict | times | without a radius |")
    print("|---|---|---|--:|--:|--:|--:|")
    for size in SIZES:
        for gated in (True, False):
            for dtype in INPUT_FORMATS:
                print(row(size, dtype, gated), flush=True)
    print(f"\n{peak(SIZES[1]) / 2**20:.0f} MiB at {SIZES[1]}")


def row(size: tuple[int, ...], dtype: str, gated: bool) -> str:
    """Return the row of one call: eager and the verdict on its answer, in turns."""
    made = case(size, dtype, gated=gated)
    call = eager(made)
    answer = call().double().numpy()
    times = [
        (timed(call), timed(lambda: Layer(made.config, made.inputs).permits(answer)))
        for _ in range(ROUNDS + 1)
    ][1:]
    first, judged = (1e3 * statistics.median(each) for each in zip(*times, strict=True))
    sure = Layer(made.config, made.inputs).near.holds(answer).all(axis=1).mean()
    name, kind = ", ".join(map(str, size)), "gated" if gated else "plain"
    cells = f"{first:.0f} ms | {judged:.0f} ms | {judged / first:.2f} | {sure:.1%}"
    return f"| {name} | {kind} | {dtype} | {cells} |"


def peak(size: tuple[int, ...]) -> int:
    """Return the most bytes that a verdict in bfloat16 holds at a time."""
    made = case(size, "bfloat16")
    answer = eager(made)().double().numpy()
    tracemalloc.start()
    Layer(made.config, made.inputs).permits(answer)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


if __name__ == "__main__":
    main(sys.argv[1:])
