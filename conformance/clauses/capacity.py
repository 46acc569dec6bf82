"""Clauses of the chapter on capacity (docs/spec/capacity.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moe_routing.conformance.calls.capacity import CapacityCase
from moe_routing.conformance.clauses.registry import Check, clause
from moe_routing.conformance.events import members
from moe_routing.conformance.explain.capacity import call_line, capacity_failure
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.generators.capacity import Wanted, choose_capacity_case
from moe_routing.conformance.generators.seeds import Seeded
from moe_routing.conformance.judge import capacity as laws
from moe_routing.conformance.judge.capacity import Demand, Dropped, Miss
from moe_routing.conformance.trial.boundary import Malformed
from moe_routing.conformance.trial.call import Raised
from moe_routing.conformance.trial.capacity import CapacityTrial
from moe_routing.implementations import Capabilities

Law = Callable[[Demand, Dropped], Miss | None]

OVERFLOWS = (
    "dropped-some-over",
    "dropped-one-over",
    "dropped-one-busy-expert",
    "dropped-all-over",
    "dropped-absent-beside-overflow",
)
ROOMS = (
    "dropped-fraction",
    "dropped-minimum-at-stake",
    "dropped-slots-at-stake",
    "dropped-tokens-at-stake",
    "dropped-second-slots-overflow",
)
EVERY_SIZE = tuple(
    slug for family in ("tokens", "experts", "large") for slug in members(f"dropped-{family}")
)


def _capacity(
    name: str,
    why: str,
    *,
    rules: tuple[str, ...],
    bugs: tuple[str, ...],
    events: tuple[str, ...],
    wanted: Wanted | None = None,
    **parts: Any,
) -> Callable[[Check], Check]:
    return clause(
        f"capacity.{name}",
        "MUST",
        why=why,
        rules=rules,
        bugs=bugs,
        events=events,
        method="drop",
        without_tokens=True,
        strategy=lambda capabilities: _calls(capabilities, wanted),
        **parts,
    )


def _calls(capabilities: Capabilities, wanted: Wanted | None) -> Seeded[CapacityCase]:
    return Seeded(lambda choose: choose_capacity_case(choose, capabilities.drops, wanted))


def _held(name: str, law: Law, trial: CapacityTrial) -> Failure | None:
    """Return the failure of one law on the answer, if it breaks it."""
    miss = law(trial.demand, trial.received)
    return None if miss is None else capacity_failure(name, trial.demand, trial.received, miss)


def _answered(name: str, law: Law, trial: CapacityTrial) -> Failure | None:
    """Return the failure of one law, or that of a call that gave no answer."""
    try:
        return _held(name, law, trial)
    except (Raised, Malformed) as error:
        return Failure(stage=name, summary=str(error), details=(call_line(trial.demand),))


@_capacity(
    "no-others",
    "A route that the router did not choose sends a token to an expert that knows nothing of it.",
    rules=("CAP-1", "CAP-2"),
    bugs=("M72",),
    events=(*OVERFLOWS, "dropped-nothing-over", *EVERY_SIZE),
)
def no_others(trial: CapacityTrial) -> Failure | None:
    """Only routes of the call are kept, each once, and an absent one stays absent."""
    return _held("no-others", laws.no_others, trial)


@_capacity(
    "respected",
    "A buffer has as many rows as the capacity says: a route more is written past its end.",
    rules=("CAP-3", "CAP-4"),
    bugs=("M72",),
    events=(*OVERFLOWS, *ROOMS, *EVERY_SIZE),
)
def respected(trial: CapacityTrial) -> Failure | None:
    """No expert keeps more routes than the capacity that is claimed."""
    return _held("respected", laws.respected, trial)


@_capacity(
    "none-needlessly",
    "A route that is dropped although its expert has room is a token that learns nothing.",
    rules=("CAP-3", "CAP-5"),
    bugs=("M72",),
    events=(
        *OVERFLOWS,
        *ROOMS,
        "dropped-exactly-full",
        "dropped-nothing-over",
        *EVERY_SIZE,
    ),
)
def none_needlessly(trial: CapacityTrial) -> Failure | None:
    """An expert drops a route only where it keeps as many as its capacity."""
    return _held("none-needlessly", laws.none_needlessly, trial)


@_capacity(
    "order",
    "Who is dropped decides what is learnt: the end of each sequence, or what the router is least "
    "sure of.",
    rules=("CAP-6",),
    bugs=("M72",),
    events=(
        "dropped-by-token",
        "dropped-first-tokens-stay",
        "dropped-by-slot",
        "dropped-by-weight",
        "dropped-absent-beside-overflow",
        *EVERY_SIZE,
    ),
    needs=lambda capabilities: _no_order(capabilities),
)
def order(trial: CapacityTrial) -> Failure | None:
    """An expert keeps the first of its routes by token, by slot or by weight, as is claimed."""
    return _held("order", laws.in_order, trial)


def _no_survivors(capabilities: Capabilities) -> str | None:
    claimed = capabilities.drops.survivors
    return f"drops.survivors={claimed} has none but free" if {*claimed} == {"free"} else None


def _no_order(capabilities: Capabilities) -> str | None:
    order = capabilities.drops.order
    return f"drops.order={order} has none but free" if {*order} == {"free"} else None


@_capacity(
    "survivors",
    "A token that lost an expert comes out weaker than the others, or just as strong: which of "
    "the two is part of the model.",
    rules=("CAP-7", "CAP-8", "CAP-9"),
    bugs=("M74",),
    events=(
        "dropped-part-of-a-token",
        "dropped-part-rescaled",
        "dropped-part-normalized",
        "dropped-nothing-over",
        *("dropped-large:1030-tokens-rescaled", "dropped-large:1030-tokens-normalized"),
    ),
    needs=lambda capabilities: _no_survivors(capabilities),
)
def survivors(trial: CapacityTrial) -> Failure | None:
    """What is kept weighs as much as before, or is rescaled or normalised, as is claimed."""
    return _held("survivors", laws.survivors, trial)


@_capacity(
    "dropped-weigh-nothing",
    "A weight that stays on a dropped route is added somewhere, or multiplied by nothing.",
    rules=("CAP-10",),
    bugs=("M72", "M74"),
    events=(
        "dropped-part-of-a-token",
        "dropped-whole-token",
        "dropped-absent-beside-overflow",
    ),
)
def dropped_weigh_nothing(trial: CapacityTrial) -> Failure | None:
    """What is dropped weighs exactly 0, and so does a token that lost all."""
    return _held("dropped-weigh-nothing", laws.nothing_lost, trial)


@_capacity(
    "larger-than-batch",
    "A small batch, or a large factor, asks for more tokens than there are, and is no error.",
    rules=("CAP-11",),
    bugs=("M72",),
    events=("dropped-larger-than-batch", "dropped-minimum-above-batch"),
    wanted=Wanted(factors=(8.0, 300.0), tokens=(1, 2, 3, 5)),
)
def larger_than_batch(trial: CapacityTrial) -> Failure | None:
    """With a capacity of the batch or more, every route is kept."""
    if trial.demand.room[0] < trial.case.num_tokens:
        return None
    return _answered("larger-than-batch", laws.none_needlessly, trial)


@_capacity(
    "zero",
    "A factor of 0 is a number: read as a default, it takes what should have been dropped.",
    rules=("CAP-12",),
    bugs=("M72",),
    events=("dropped-zero", "dropped-zero-with-minimum", "dropped-zero-unlimited"),
    wanted=Wanted(factors=(0.0,)),
    needs=lambda capabilities: _no_zero(capabilities),
)
def zero(trial: CapacityTrial) -> Failure | None:
    """A factor of 0 leaves the minimum, or takes everything, as is claimed."""
    if trial.case.config.factor != 0.0:
        return None
    return _held("zero", laws.respected, trial) or _held("zero", laws.none_needlessly, trial)


def _no_zero(capabilities: Capabilities) -> str | None:
    factor = capabilities.drops.factor
    return None if 0.0 in factor else f"drops.factor={factor} has no 0"


@_capacity(
    "no-tokens",
    "A rank without tokens is ordinary under expert parallelism, and must not end the job.",
    rules=("CAP-13",),
    bugs=("M53",),
    events=("dropped-tokens:0",),
    wanted=Wanted(tokens=(0,)),
)
def no_tokens(trial: CapacityTrial) -> Failure | None:
    """Without tokens there is nothing to keep, and no error."""
    return None if trial.case.num_tokens else _answered("no-tokens", laws.no_others, trial)


@_capacity(
    "inputs-untouched",
    "The ids and weights are read again: by the loss that counts them before they are dropped.",
    rules=("CAP-14",),
    bugs=("M61",),
    events=("dropped-some-over", "dropped-nothing-over"),
)
def inputs_untouched(trial: CapacityTrial) -> Failure | None:
    """The call leaves expert ids and weights as they were."""
    if not trial.changed:
        return None
    summary = f"wrote to its inputs: {', '.join(trial.changed)}"
    return Failure(stage="inputs-untouched", summary=summary, details=(call_line(trial.demand),))
