"""A campaign of honest gradients, which the judge must not refuse (docs/false-alarms.md).

Drawn routers of the whole specification, differentiated by torch's autograd in every form of
``torch_forms``, each judged from its own logits and from the reference's:

    python tests/helpers/honest_gradients.py CASES [--seed S] [--jobs N] [--seconds S] [--device D]

prints what was judged, as a table, and one line for each alarm.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch_forms import FORMS, MORE_FORMS, differentiated, judged

from moe_routing.conformance.calls.gradients import GradientCase
from moe_routing.conformance.generators.choices import Focus, seeded
from moe_routing.conformance.generators.gradients import choose_gradient_case
from moe_routing.conformance.judge import Bounds
from moe_routing.conformance.judge.gradients import GradientVerdict, Judged
from moe_routing.implementations import Capabilities, Numerics

_LARGE = 30_000
"""Numbers of logits from which a case is left out: a campaign is of many, not of large ones."""


def forms_of(case: GradientCase) -> Iterator[str]:
    """Yield the forms that differ on a case: a narrow one is another where scores may be narrow."""
    narrow = case.config.scores_dtype == "input" and case.dtype != "float32"
    for form in (*FORMS, *MORE_FORMS):
        if narrow or "narrow" not in form:
            yield form


def is_defect(case: GradientCase, form: str, found: Judged) -> bool:
    """Whether all that is wrong is a NaN or infinite, and made by the form of finite numbers.

    ``1 / (1 + exp2(-z))`` far below 0, and a reciprocal that overflows.
    """
    makes = form == "power" or ("reciprocal" in form and case.config.renormalize is not None)
    return makes and not bool(np.isfinite(found.answered[found.wrong]).any())


def verdicts(case: GradientCase, device: str) -> Iterator[tuple[str, GradientVerdict]]:
    """Yield the verdicts on all forms, from their own logits and from the reference's."""
    bounds = Bounds(case.config, case.inputs.router, Numerics())
    for form in forms_of(case):
        answer, given = differentiated(bounds, case, form, device)
        own = judged(bounds, case, answer, given)
        yield form, own
        rest = {name: each for name, each in given.items() if name != "logits"}
        yield form, replace(own, given=rest, routed=False)


def one(number: int, seed: int, device: str) -> tuple[list[str], Counter[str]]:
    """Return the alarms of one case, and what was judged."""
    torch.set_num_threads(1)
    if device != "cpu":  # partial sums in 16 bits are a finding, not a form
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    alarms, counts = [], Counter[str]()
    case = choose_gradient_case(seeded(2**32 * seed + number), Capabilities(), Focus())
    if case.inputs.cotangent.size > _LARGE:
        return [], Counter({"large cases, left out": 1})
    with np.errstate(all="ignore"):
        for form, verdict in verdicts(case, device):
            if verdict.routed:
                counts["tokens"] += case.num_tokens
                counts["tokens left open"] += int((~verdict.at_logits.decided).sum())
            for name in verdict.given:
                found = verdict.of(name)
                counts.update({"gradients": 1, f"gradients in {case.dtype}": 1, form: 1})
                counts["numbers"] += int(found.permitted.decided.sum())
                if not found.wrong.any():
                    continue
                if is_defect(case, form, found):
                    counts["NaNs of a form"] += 1
                    continue
                counts["alarms"] += 1
                place = tuple(int(i) for i in np.argwhere(found.wrong)[0])
                alarms.append(
                    f"ALARM case {number} of seed {seed}, {form}, routed={verdict.routed}: "
                    f"{name}{list(place)} is {found.answered[place]!r}, but may be "
                    f"{found.permitted.mid[place]!r} +- {found.permitted.rad[place]!r}; "
                    f"{case.dtype} {case.recipe} {case.config}"
                )
    counts["cases"] += 1
    return alarms, counts


def main() -> None:
    """Run a campaign, and print what it judged."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    # with AMX a row of NaN reaches its neighbour: a finding as well (docs/findings/torch.md)
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
    counts, start = Counter[str](), time.monotonic()
    todo = partial(one, seed=asked.seed, device=asked.device)
    with multiprocessing.get_context("spawn").Pool(asked.jobs) as pool:
        for alarms, seen in pool.imap_unordered(todo, range(asked.cases), chunksize=4):
            counts.update(seen)
            for line in alarms:
                print(line, flush=True)
            if time.monotonic() - start > asked.seconds:
                break
        pool.terminate()
    counts["alarms"] += 0
    print(f"device {asked.device}, torch {torch.__version__}, {time.monotonic() - start:.0f} s\n")
    print("| | |\n|---|--:|")
    for name, count in sorted(counts.items()):
        print(f"| {name} | {count:,} |")


if __name__ == "__main__":
    main()
