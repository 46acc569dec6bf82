"""The judge that makes every interval of every token, held against the one that does without.

A campaign of as many cases as are wanted, of every recipe, dtype and resident of the zoo:

    python tests/helpers/both_judges.py 100000 0
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.generators.choices import Focus, choose_case, seeded
from moe_routing.conformance.judge import Answer, Bounds, judge
from moe_routing.conformance.judge.rows import NONE
from moe_routing.conformance.judge.selection import chosen_mask, distinct_in_range, may_select
from moe_routing.conformance.judge.verdict import own_logits
from moe_routing.conformance.judge.weights import weight_bounds
from moe_routing.conformance.trial.boundary import Malformed
from moe_routing.conformance.trial.call import Raised
from moe_routing.conformance.trial.trial import Trial
from moe_routing.conformance.zoo import HONEST, MUTANTS
from moe_routing.implementations import Adapter, Capabilities, Numerics

WHOLE = Capabilities()
NUMERICS = (Numerics(), Numerics(), Numerics(select_bits=13), Numerics(sigmoid="absolute"))


def parts_of(bounds: Bounds, answer: Answer, logits: str) -> dict[str, np.ndarray]:
    """What the judge finds."""
    found = judge(bounds, answer, logits=logits)  # type: ignore[arg-type]
    permitted = found.weight_bounds.permitted
    return {
        "selection": found.selection,
        "weights": found.weights,
        "decided": found.decided,
        "apart": found.apart,
        "least": permitted.lo,
        "most": permitted.hi,
    }


def whole_parts_of(bounds: Bounds, answer: Answer, logits: str) -> dict[str, np.ndarray]:
    """What a judge finds that makes the intervals of all experts, and looks at nothing else."""
    with np.errstate(all="ignore"):
        return _whole_parts_of(bounds, answer, logits)


def _whole_parts_of(bounds: Bounds, answer: Answer, logits: str) -> dict[str, np.ndarray]:
    config, judged, ids = bounds.config, bounds.judged, answer.expert_ids
    own = answer.logits if logits == "routed" else None
    of = bounds.logits.permitted if own is None else own_logits(bounds, own)
    later = bounds.from_logits(of)
    chosen, competing = chosen_mask(ids, config.num_experts), later.competing
    distinct, in_range = distinct_in_range(ids, config.num_experts)
    if bounds.inputs.expert_table is not None:
        table = bounds.reference.expert_ids
        right = (np.sort(ids, axis=1) == np.sort(table, axis=1)).all(axis=1) | ~in_range
    else:
        right = may_select(competing, chosen, config.groups, later.group_format)
        right = right | ~(distinct & in_range) | ~judged
    valid = (ids >= 0) & (ids < config.num_experts)
    bound = weight_bounds(bounds, later, np.clip(ids, 0, config.num_experts - 1))
    fine = bound.permitted.contains(answer.weights)
    fine |= ~bound.decided[:, None] & np.isnan(answer.weights)
    fine |= ~judged[:, None] | ~valid
    apart = np.full((len(ids), 2), NONE)
    if bound.row is not None:
        known = judged & fine.all(axis=1) & valid.all(axis=1) & bound.decided
        apart = bound.row.apart(answer.weights, known)
        rows = apart[:, 0] != NONE
        fine[rows] &= ~chosen_mask(apart[rows], config.top_k)
    return {
        "selection": right,
        "weights": fine,
        "decided": bound.decided,
        "apart": apart,
        "least": bound.permitted.lo,
        "most": bound.permitted.hi,
    }


def answers_to(case: Case, residents: list[Adapter], stream: random.Random) -> Iterator[Answer]:
    """Yield answers, right and wrong: of some residents, with other ids, and with equal ones."""
    for resident in residents:
        try:
            answer = Trial(resident, case).received.answer
        except (Raised, Malformed):
            continue
        yield answer
        yield replace(answer, expert_ids=(answer.expert_ids + 1) % case.config.num_experts)
        ids = answer.expert_ids.copy()
        if ids.size:
            t, k = stream.randrange(len(ids)), stream.randrange(ids.shape[1])
            ids[t, k] = stream.randrange(-1, case.config.num_experts + 1)
            yield replace(answer, expert_ids=ids)


def drawn(number: int, seed: int) -> tuple[Case, list[Answer], Numerics, str]:
    """Return a case of the whole specification, answers to it, numerics, and what logits are."""
    stream = random.Random(f"{seed}/{number}")
    case = choose_case(seeded(stream.getrandbits(64)), WHOLE, Focus())
    some = [stream.choice([*HONEST.values()]), stream.choice([*MUTANTS.values()])]
    made = [*answers_to(case, [each.adapter() for each in some], stream)]
    return case, made, stream.choice(NUMERICS), stream.choice(("routed", "routed", "copy"))


def differences(number: int, seed: int) -> tuple[list[str], Counter[str]]:
    """Return what the two judges find differently in one case, and what was judged."""
    case, answers, numerics, logits = drawn(number, seed)
    found: list[str] = []
    for answer in answers:
        bounds, fresh = (Bounds(case.config, case.inputs, numerics) for _ in range(2))
        one, other = parts_of(bounds, answer, logits), whole_parts_of(fresh, answer, logits)
        rows = bounds.judged
        for name, value in one.items():
            if not np.array_equal(
                value[rows], other[name][rows], equal_nan=value.dtype.kind == "f"
            ):
                found.append(f"case {number} of seed {seed}: {name} of {case.size} {case.config}")
    config = case.config
    fill = "no groups" if config.groups is None else f"fill {config.groups.fill}"
    facts = (case.recipe, case.inputs.dtype, config.score, config.weights_from, fill, logits)
    counts = Counter({"answers": len(answers), "cases": 1, **dict.fromkeys(facts, 1)})
    return found, counts


def main(count: int, seed: int) -> None:
    """Print what differs, and what was judged."""
    counts: Counter[str] = Counter()
    for number in range(count):
        found, seen = differences(number, seed)
        counts.update(seen)
        for line in found:
            print(line, flush=True)
        counts["different"] += len(found)
    print(dict(counts.most_common()))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
