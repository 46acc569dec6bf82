"""What is said of one token: what was recorded of it, and what was permitted."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.explain.numbers import listed, missed, show, span
from moe_routing.conformance.judge.intervals import Interval
from moe_routing.conformance.judge.selection import chosen_mask
from moe_routing.conformance.traces.block_data import BlockData
from moe_routing.conformance.traces.blocks import (
    IDS,
    LOGITS,
    SELECTION,
    Evidence,
    permitted_weights,
)
from moe_routing.conformance.traces.router import Router
from moe_routing.reference.formats import Floats, Ids
from moe_routing.reference.routing import later_stages

_MOST = 4


def story_of(
    router: Router,
    ids: Ids,
    evidence: Evidence | None,
    weights: Floats | None,
    row: int,
    stage: int,
) -> tuple[str, ...]:
    """Return the lines on a token that is wrong at a ``stage``."""
    chosen = f"expert_ids={listed(ids[row].tolist())}"
    if stage == IDS or evidence is None:
        rule = "in range" if router.forced else "distinct and in range"
        return (f"{chosen}, but should be {rule}: 0 to {router.config.num_experts - 1}",)
    if stage == LOGITS:
        return ("its logits are not those of its hidden states",)
    one, around = np.array([row]), evidence.around(router, np.array([row]))
    if stage == SELECTION:
        reference = exact_choice(router, evidence, row)
        head = f"the recorded logits choose {listed(reference)}"
        return chosen, head, *_cut(router, around, ids[one])
    assert weights is not None, "weights were judged"
    return _of_weights(router, around, ids[one], weights[one])


def story_of_undefined(evidence: Evidence, row: int) -> tuple[str, ...]:
    """Return the line on a token whose scores are undefined."""
    logits = evidence.logits[row]
    expert = int(np.argmax(np.isnan(logits) | np.isposinf(logits)))
    return (f"the logit of expert {expert} is {show(logits[expert])}: its ids alone are judged",)


def exact_choice(router: Router, evidence: Evidence, row: int) -> list[int]:
    """Return the experts that exact arithmetic chooses for a token."""
    logits = evidence.logits[row : row + 1].astype(np.float64)
    with np.errstate(all="ignore"):
        found: list[int] = (
            later_stages(router.config, router.inputs, (), logits).expert_ids[0].tolist()
        )
    return found


def _cut(router: Router, logits: Interval, ids: Ids) -> tuple[str, ...]:
    """Return what competes least of the chosen and most of the others; of groups, nothing."""
    if router.config.groups is not None:
        return ()
    competing = router.later(logits).competing
    chosen = chosen_mask(ids, router.config.num_experts)[0]
    most = np.where(chosen, competing.hi[0], np.inf)
    least = np.where(chosen, -np.inf, competing.lo[0])
    inside, outside = int(most.argmin()), int(least.argmax())
    return (
        f"expert {outside}, left out, competes with {show(least[outside])} or more;",
        f"expert {inside}, chosen, with {show(most[inside])} or less: "
        f"missed by {show(least[outside] - most[inside], 3)}",
    )


def _of_weights(router: Router, logits: Interval, ids: Ids, weights: Floats) -> tuple[str, ...]:
    with np.errstate(all="ignore"):
        permitted = permitted_weights(router, ids, logits, weights)
    lines = []
    for k in range(ids.shape[1]):
        ends = float(permitted.lo[0, k]), float(permitted.hi[0, k])
        beyond = missed(float(weights[0, k]), ends)
        if beyond:
            lines.append(
                f"weights[{k}]={show(weights[0, k])}, but should be in {span(ends)} "
                f"(expert {ids[0, k]})"
            )
    if not lines:
        return ("each weight is permitted, but no factor explains them together",)
    return tuple(lines[:_MOST])


def story_of_difference(
    one: BlockData, other: BlockData, ours: Ids, theirs: Ids, row_a: int, row_b: int
) -> tuple[str, ...]:
    """Return the lines on a token that two traces route differently."""
    left, right = set(ours.tolist()), set(theirs.tolist())
    lines = [f"A chose {listed(sorted(left))}", f"B chose {listed(sorted(right))}"]
    for expert in sorted(left ^ right)[:_MOST]:
        lines.append(f"expert {expert}, of {'A' if expert in left else 'B'} alone")
        lines += [
            f"  by {data.of.letter}'s logit {_logit(data, row, expert)}"
            for data, row in ((one, row_a), (other, row_b))
            if data.evidence is not None
        ]
    return tuple(lines)


def _logit(data: BlockData, row: int, expert: int) -> str:
    assert data.evidence is not None, "the logits are there"
    if not 0 <= expert < data.router.config.num_experts:
        return "none: out of range"
    around = data.evidence.around(data.router, np.array([row]))
    value = show(float(data.evidence.logits[row, expert]))
    ends = float(around.lo[0, expert]), float(around.hi[0, expert])
    return f"{value} (routed in {span(ends)})"
