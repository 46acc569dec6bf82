"""The judge that goes to a device first, held against NumPy's alone.

A campaign of as many cases as are wanted, of every recipe, dtype and resident of the zoo:

    python tests/helpers/device_judge.py 10000 0 cuda
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from both_judges import drawn

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.judge import (
    NONE,
    Answer,
    Bounds,
    Verdict,
    by_device,
    certain_logits,
    judge,
    lean,
)
from moe_routing.conformance.judge.by_device import DeviceVerdict, judge_by_numpy
from moe_routing.implementations import Numerics
from moe_routing.reference.formats import FORMATS

Logits = Literal["routed", "copy", "none"]

STAGES = ("judged", "distinct", "in_range", "selection", "weights", "decided", "apart", "logits")


def with_logits(case: Case, answers: list[Answer], stream: random.Random) -> Iterator[Answer]:
    """Yield answers that have logits: their own, the exact ones rounded, and some a little off."""
    whole = Bounds(case.config, case.inputs, Numerics()).reference
    for answer in answers:
        own = answer.logits
        if own is None:
            own = FORMATS[case.inputs.dtype].round(whole.logits)
        yield replace(answer, logits=own)
        rng = np.random.default_rng(stream.getrandbits(32))
        off = 2.0**-24 * rng.integers(-64, 65, own.shape) * (rng.random(own.shape) < 0.1)
        units = 2.0**-24 * rng.integers(-40, 41, answer.weights.shape)
        with np.errstate(all="ignore"):
            weights = answer.weights * (1.0 + units)
            yield replace(answer, logits=own * (1.0 + off), weights=weights)


def right(verdict: Verdict) -> np.ndarray:
    """The tokens with nothing wrong and nothing open."""
    fine = verdict.judged & verdict.distinct & verdict.in_range & verdict.selection
    fine = fine & verdict.decided & verdict.weights.all(axis=1)
    if verdict.logits is not None:
        fine = fine & verdict.logits.all(axis=1)
    return np.asarray(fine & (verdict.apart == NONE).all(axis=1))


def differences(number: int, seed: int, logits: Logits, device: str) -> tuple[list[str], Counter]:
    """Return what the two find differently in one case, and how many rows a device decided.

    Whoever calls this makes calls of every size large.
    """
    case, answers, numerics, _ = drawn(number, seed)
    found, counts = [], Counter(cases=1)
    for answer in with_logits(case, answers[:3], random.Random(number)):
        given = replace(answer, logits=None) if logits == "none" else answer
        bounds, fresh = (Bounds(case.config, case.inputs, numerics) for _ in range(2))
        if not bounds.blocks:
            continue
        numpy = judge_by_numpy(fresh, given, logits=logits)
        there = judge(bounds, replace(given, device=device), logits=logits)
        words = f"of case {number} of seed {seed}, {logits}: {case.size} {case.config}"
        for name in STAGES:
            if not np.array_equal(getattr(there, name), getattr(numpy, name)):
                found.append(f"{name} {words}")
        counts.update(answers=1, rows=len(numpy.judged))
        if isinstance(there, DeviceVerdict):
            if (there.there.right & ~right(numpy)).any():
                found.append(f"a row {words}")
            counts.update(decided=int(there.there.right.sum()), right=int(right(numpy).sum()))
    return found, counts


def arguments(given: list[str]) -> tuple[int, int, str]:
    """Return how many cases, the seed and the device. Errors: ``SystemExit``, in one line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("count", type=int, metavar="CASES")
    parser.add_argument("seed", type=int, metavar="SEED")
    parser.add_argument("device", choices=("cpu", "cuda"), metavar="DEVICE", help="cpu or cuda")
    found = parser.parse_args(given)
    if found.device == "cuda" and not torch.cuda.is_available():
        parser.error(f"It needs a GPU that torch {torch.__version__} can use, and there is none")
    return found.count, found.seed, found.device


def main(given: list[str]) -> None:
    """Print what differs, and what was judged."""
    count, seed, device = arguments(given)
    lean.LARGE = certain_logits.LARGE = 0  # calls of every size are large
    by_device.has_torch = lambda device: True
    counts: Counter = Counter()
    kinds: tuple[Logits, ...] = ("routed", "none", "copy")
    for number in range(count):
        found, seen = differences(number, seed, kinds[number % 3], device)
        counts.update(seen)
        counts["different"] += len(found)
        for line in found:
            print(line, flush=True)
    print(dict(counts))


if __name__ == "__main__":
    main(sys.argv[1:])
