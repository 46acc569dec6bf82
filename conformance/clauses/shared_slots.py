"""Clauses on shared experts that run as slots of their own, behind the routed ones."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.clauses.registry import clause
from moe_routing.conformance.events import members
from moe_routing.conformance.explain.failure import Failure, first_failure
from moe_routing.conformance.explain.numbers import show
from moe_routing.conformance.generators.choices import Focus
from moe_routing.conformance.judge.shared_slots import shared_weight
from moe_routing.conformance.trial.base import Unchecked
from moe_routing.conformance.trial.trial import Trial
from moe_routing.implementations import Capabilities
from moe_routing.implementations.permitted import listed
from moe_routing.reference import SharedSlots
from moe_routing.reference.formats import Floats, Ids

SIZES = members("shared-slot-at")

_BEHIND = Focus(offers={"shared_slots": lambda offered: [x for x in offered if x is not None]})


def _has_them(capabilities: Capabilities) -> str | None:
    """Return what is lacking where no claim has shared slots."""
    permitted = [listed(claim.shared_slots) for claim in capabilities.claims]
    if any(each is None or any(x is not None for x in each) for each in permitted):
        return None
    return "nothing claimed has shared_slots"


@clause(
    "layout.shared-slots",
    "MUST",
    why="A kernel runs what it is handed: a shared expert under another id is not run, or another "
    "expert in its place, on every token.",
    rules=("LAY-12",),
    bugs=("M38", "M52", "M58", "M59"),
    needs=_has_them,
    promise="shared_slots",
    events=("shared-slot", "several-shared-slots", *SIZES),
    focus=_BEHIND,
)
def shared_ids(trial: Trial) -> Failure | None:
    """Slot K + s of every token holds the shared expert E + s."""
    _, (_, ids) = _of(trial)
    due = trial.case.config.num_experts + np.arange(ids.shape[1])
    wrong = ids != due
    if not wrong.any():
        return None
    t, s = (int(i) for i in np.argwhere(wrong)[0])
    slot = trial.case.config.top_k + s
    summary = (
        f"slot {slot} of token {t} holds expert {ids[t, s]}, but should hold the shared expert "
        f"{due[s]}"
    )
    return Failure(stage="layout", summary=summary)


@clause(
    "weights.shared-slots",
    "MUST",
    why="A shared expert that is scaled, or counted in the norm, with the routed ones is a part "
    "of itself on every token, and so are they.",
    rules=("WGT-12",),
    bugs=("M20", "M21", "M22", "M59"),
    needs=_has_them,
    promise="shared_slots",
    events=(
        "shared-slot",
        "several-shared-slots",
        "shared-slot-of-another-weight",
        "shared-slot-beside-a-scale",
        "shared-slot-beside-a-norm",
        "shared-slot-beside-a-tiny-norm",
        *SIZES,
    ),
    focus=_BEHIND,
)
def shared_weights(trial: Trial) -> Failure | None:
    """A shared slot has its own weight, unscaled, and the routed ones are as without it."""
    shared, (weights, _) = _of(trial)
    permitted = shared_weight(trial.bounds, shared)
    wrong = ~permitted.contains(weights.astype(np.float64)) & trial.verdict.judged[:, None]
    if not wrong.any():
        return first_failure(trial.verdict, "weights")
    t, s = (int(i) for i in np.argwhere(wrong)[0])
    slot = trial.case.config.top_k + s
    summary = (
        f"weights[{t}, {slot}] is {show(weights[t, s])}, but should be {shared.weight:g}: that of "
        "a shared expert is neither scaled nor in a norm"
    )
    return Failure(stage="weights", summary=summary)


def _of(trial: Trial) -> tuple[SharedSlots, tuple[Floats, Ids]]:
    """Return the shared slots of a case, and the answer's weights and ids in them."""
    shared, found = trial.case.config.shared_slots, trial.received.shared
    if shared is None or found is None:
        raise Unchecked("it has no shared slots")
    return shared, found
