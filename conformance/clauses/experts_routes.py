"""Clauses of the chapter on experts about routes, sizes and calls (docs/spec/experts.md)."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np

from moe_routing.conformance.calls.experts import ExpertsCase
from moe_routing.conformance.calls.memory import with_changes
from moe_routing.conformance.clauses.experts_calls import experts_clause, held, lists, trial_of
from moe_routing.conformance.events import members
from moe_routing.conformance.explain.experts import call_line
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.generators.experts_smaller import keep
from moe_routing.conformance.trial.base import Unchecked
from moe_routing.conformance.trial.boundary import Malformed
from moe_routing.conformance.trial.call import Raised
from moe_routing.conformance.trial.experts import ExpertsTrial
from moe_routing.reference.formats import Ids

EMPTY = (
    "ran-first-empty",
    "ran-last-empty",
    "ran-every-other-empty",
    "ran-one-token",
    "ran-one-expert",
)


@experts_clause(
    "absent",
    "A sentinel that is clamped to a real expert runs it: times 0 that is NaN where it overflows.",
    rules=("EXP-11",),
    bugs=("M46", "M47", "M48"),
    events=("ran-some-absent", "ran-absent-first-and-last-not-finite"),
    offers={"absence": ("some", "tokens")},
    poison="nan",
    needs=lists("absent", True),
)
def absent(trial: ExpertsTrial) -> Failure | None:
    """An absent route adds exactly 0, whatever any expert holds."""
    some = np.asarray(~trial.layer.present.all(axis=1))
    return held("absent", trial, some)


@experts_clause(
    "all-absent",
    "A row that no expert writes must be 0, not what the memory held before.",
    rules=("EXP-12",),
    bugs=("M47", "M48"),
    events=("ran-token-absent", "ran-all-absent"),
    offers={"absence": ("tokens", "all")},
    needs=lists("absent", True),
)
def all_absent(trial: ExpertsTrial) -> Failure | None:
    """A token whose routes are all absent gets exactly 0, in memory that held something else."""
    _stain(trial)
    lost = np.asarray(~trial.layer.present.any(axis=1))
    return held("all-absent", trial, lost)


def _stain(trial: ExpertsTrial) -> None:
    """Make the same call with every route present, if it is claimed, which fills the memory."""
    inputs = trial.case.inputs
    everywhere = np.where(trial.layer.present, inputs.expert_ids, 0)
    busy = replace(inputs, expert_ids=everywhere, weights=np.ones_like(inputs.weights))
    case = replace(trial.case, inputs=busy)
    if not trial.excuses(case) and not trial.capabilities.computes.refusals(case.config, busy):
        _ = cast(ExpertsTrial, trial.another(case)).native


@experts_clause(
    "unchosen",
    "Experts that nobody chose may hold anything: unloaded weights, those of another rank.",
    rules=("EXP-13",),
    bugs=("M47", "M48"),
    events=("ran-unchosen-nan", "ran-unchosen-inf"),
    poison="inf",
    offers={"load": ("one", "two", "every-other"), "experts": (3, 4, 8, 16)},
)
def unchosen(trial: ExpertsTrial) -> Failure | None:
    """NaN and infinities in an expert that nobody chose leave every output as it is."""
    return held("unchosen", trial)


@experts_clause(
    "empty-expert",
    "Offsets that forget an empty expert run every later token through its neighbour's weights.",
    rules=("EXP-14",),
    bugs=("M36", "M41", "M53"),
    events=EMPTY,
    offers={"load": ("one", "two", "first", "last", "every-other"), "experts": (3, 4, 8, 16)},
)
def empty_expert(trial: ExpertsTrial) -> Failure | None:
    """Experts without routes, and experts with one, change nothing for the others."""
    return held("empty-expert", trial)


@experts_clause(
    "no-token",
    "A rank without tokens is ordinary under expert parallelism, and must not end the job.",
    rules=("EXP-15",),
    bugs=("M53",),
    events=("ran-tokens:0",),
    offers={"tokens": (0,)},
    without_tokens=True,
)
def no_token(trial: ExpertsTrial) -> Failure | None:
    """Without tokens the output is an empty array of H columns."""
    if trial.case.num_tokens:
        return None
    try:
        _ = trial.output
    except (Raised, Malformed) as error:
        line = call_line(trial.layer)
        return Failure(stage="no-token", summary=f"without tokens: {error}", details=(line,))
    return None


@experts_clause(
    "slot-order",
    "Routers list the experts of a token in any order, so a weight must stay with its expert.",
    rules=("EXP-16",),
    bugs=("M52",),
    events=("ran-several", "ran-weights-differ"),
    offers={"top_k": (2, 3, 4, 6, 8)},
)
def slot_order(trial: ExpertsTrial) -> Failure | None:
    """With the slots of every token in another order the output is right as well."""
    slots = np.arange(trial.case.inputs.top_k)[::-1]
    return held("slot-order", trial_of(trial, keep(trial.case, "slots", slots)))


@experts_clause(
    "repeated",
    "A map of tokens and experts has one place for an expert that holds two slots of a token.",
    rules=("EXP-17",),
    bugs=("M52",),
    events=("ran-repeated",),
    offers={"repeats": (True,), "load": ("one", "two", "uniform"), "top_k": (2, 3, 4, 6, 8)},
    needs=lists("repeats", True),
)
def repeated(trial: ExpertsTrial) -> Failure | None:
    """An expert that holds several slots of a token is added once for each."""
    ids = np.sort(trial.case.inputs.expert_ids, axis=1)
    again = ((ids[:, 1:] == ids[:, :-1]) & (ids[:, 1:] >= 0)).any(axis=1)
    return held("repeated", trial, again)


@experts_clause(
    "batch-split",
    "What other tokens are in a batch must not matter: tiles, counters and places are theirs.",
    rules=("EXP-18",),
    bugs=("M36", "M41", "M53"),
    events=("ran-several", "ran-chosen-inf", *members("ran-tokens")[1:]),
    most=100,
)
def batch_split(trial: ExpertsTrial) -> Failure | None:
    """Each half of a batch, and its first token alone, get right outputs as well."""
    number = trial.case.num_tokens
    if number < 2:
        raise Unchecked("a batch of one token cannot be split")
    for kept in (np.arange(number // 2), np.arange(number // 2, number), np.arange(1)):
        if (failure := _half(trial, kept)) is not None:
            return failure
    return None


def _half(trial: ExpertsTrial, kept: Ids) -> Failure | None:
    case = keep(trial.case, "tokens", kept)
    failure = held("batch-split", trial_of(trial, case))
    return None if failure is None else replace(failure, made=case)


@experts_clause(
    "untouched",
    "Hidden states are read again: by shared experts, the residual, the backward pass.",
    rules=("EXP-19",),
    bugs=("M61",),
    events=("ran-several", "ran-weights-differ"),
)
def untouched(trial: ExpertsTrial) -> Failure | None:
    """The call leaves hidden states, routes and weights as they were."""
    if not trial.changed:
        return None
    summary = f"wrote to its inputs: {', '.join(trial.changed)}"
    return Failure(stage="untouched", summary=summary, details=(call_line(trial.layer),))


@experts_clause(
    "repeatable",
    "A buffer that is kept between calls and not cleared is right the first time alone, and so are "
    "matrices that were packed once for each array: an optimizer updates them in place.",
    rules=("EXP-20",),
    bugs=("M34", "M48"),
    events=("ran-several",),
)
def repeatable(trial: ExpertsTrial) -> Failure | None:
    """Later calls are right, with new values in the same arrays too, and leave the first answer."""
    first, case = trial.output, trial.case
    other = replace(case, inputs=replace(case.inputs, hidden=-case.inputs.hidden))
    for later in (case, other):
        if (failure := held("repeatable", trial_of(trial, later))) is not None:
            return failure if later is case else replace(failure, made=later)
    if (failure := _updated(trial)) is not None:
        return failure
    differs = ~((first == trial.reread()) | np.isnan(first))
    if not differs.any():
        return None
    t, h = (int(i) for i in np.argwhere(differs)[0])
    summary = f"the first call's output[{t}, {h}] changed during a later one"
    return Failure(stage="repeatable", token=t, summary=summary, details=(call_line(trial.layer),))


def _updated(trial: ExpertsTrial) -> Failure | None:
    """Return the failure of a call with new matrices in the arrays of an earlier one."""
    case = _stepped(trial.case)
    failure = held("repeatable", cast(ExpertsTrial, trial.updated(case)))
    if failure is None:
        return None
    words = "with new values written into the arrays of an earlier call"
    return replace(failure, summary=f"{words}: {failure.summary}", made=case)


def _stepped(case: ExpertsCase) -> ExpertsCase:
    """Return the call with other matrices and biases, of values that the dtype holds."""
    inputs, down, gate = case.inputs, case.inputs.down_weight, case.inputs.gate_weight
    changes = {
        "up_weight": -inputs.up_weight,
        "down_weight": np.roll(down, 1, axis=1),
        "gate_weight": None if gate is None else np.roll(gate, 1, axis=1),
        **{name: None if (b := getattr(inputs, name)) is None else -b for name in _BIASES},
    }
    return replace(case, inputs=with_changes(inputs, **changes))


_BIASES = ("gate_bias", "up_bias", "down_bias")


@experts_clause(
    "large-offsets",
    "An offset is a product of a row and a width, and one that wraps reads another row: in 16 bits "
    "from 65,536 numbers on, in 32 from 2^31.",
    rules=("EXP-29",),
    bugs=("M51",),
    events=(
        "ran-row-offsets-past-16-bits",
        "ran-inner-offsets-past-16-bits",
        "ran-matrix-offsets-past-16-bits",
    ),
    huge=("ran-inner-offsets-past-31-bits",),
    most=10,
)
def large_offsets(trial: ExpertsTrial) -> Failure | None:
    """Rows and matrices that begin past number 65,536 of their arrays are the right ones."""
    return held("large-offsets", trial)
