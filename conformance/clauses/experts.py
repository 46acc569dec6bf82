"""Clauses of the chapter on experts (docs/spec/experts.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from moe_routing.conformance.clauses.registry import Check, clause
from moe_routing.conformance.events import members
from moe_routing.conformance.explain.experts import call_line, experts_failure
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.generators.experts import TOKENS, Wishes
from moe_routing.conformance.generators.experts_smaller import keep
from moe_routing.conformance.trial.base import Unchecked
from moe_routing.conformance.trial.boundary import Malformed
from moe_routing.conformance.trial.call import Raised
from moe_routing.conformance.trial.experts import ExpertsTrial
from moe_routing.implementations import Capabilities
from moe_routing.reference.formats import Bools, Ids

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    from moe_routing.conformance.calls.experts import ExpertsCase

SOME = tuple(n for n in TOKENS if n)
ACTIVATIONS = members("ran-activation")
SIZES = tuple(
    slug
    for family in ("tokens", "experts", "slots", "rows", "columns", "width")
    for slug in members(f"ran-{family}")
)
EMPTY = (
    "ran-first-empty",
    "ran-last-empty",
    "ran-every-other-empty",
    "ran-one-token",
    "ran-one-expert",
)


def _experts(
    name: str,
    why: str,
    *,
    rules: tuple[str, ...],
    bugs: tuple[str, ...],
    events: tuple[str, ...],
    level: Any = "MUST",
    weights: str = "positive",
    poison: str = "",
    offers: dict[str, tuple[Any, ...]] | None = None,
    **parts: Any,
) -> Callable[[Check], Check]:
    wishes = Wishes(offers={"tokens": SOME, **(offers or {})}, weights=weights, poison=poison)
    return clause(
        f"experts.{name}",
        level,
        why=why,
        rules=rules,
        bugs=bugs,
        events=events,
        method="experts",
        strategy=lambda capabilities: _calls(capabilities, wishes),
        **parts,
    )


def _calls(capabilities: Capabilities, wishes: Wishes) -> SearchStrategy[ExpertsCase]:
    from moe_routing.conformance.generators.strategies import experts_cases

    return experts_cases(capabilities, wishes)


def _held(name: str, trial: ExpertsTrial, among: Bools | None = None) -> Failure | None:
    """Return the failure at the first output that is wrong, of these, ``[T]`` or ``[T, H]``."""
    wrong = trial.wrong
    if among is not None:
        wrong = wrong & (among[:, None] if among.ndim == 1 else among)
    return experts_failure(name, trial.layer, trial.output, wrong) if wrong.any() else None


def _of(trial: ExpertsTrial, case: ExpertsCase) -> ExpertsTrial:
    return cast(ExpertsTrial, trial.of(case))


def _lists(axis: str, value: Any) -> Callable[[Capabilities], str | None]:
    """Return what says that a claim does not list ``value``, which the clause is about."""

    def lacking(capabilities: Capabilities) -> str | None:
        listed = getattr(capabilities.computes, axis)
        return None if value in listed else f"computes.{axis}={listed} has no {value}"

    return lacking


@_experts(
    "match",
    "An activation that is nearly the right one, or halves that are swapped, train and serve badly "
    "and never crash.",
    rules=("EXP-1", "EXP-2", "EXP-3", "EXP-4"),
    bugs=("M13", "M35", "M36", "M38", "M41", "M44", "M52", "M63", "M82", "M83", "M84"),
    events=(
        *ACTIVATIONS,
        "ran-limit",
        "ran-alpha",
        "ran-several",
        "ran-gated",
        "ran-plain",
        "ran-square",
        "ran-half-as-wide",
        "ran-negative-weights",
        *SIZES,
    ),
)
def match(trial: ExpertsTrial) -> Failure | None:
    """The output is the weighted sum of what the chosen experts make of a token."""
    return _held("match", trial)


@_experts(
    "exact",
    "Sums below float32, or products of operands that were cut, hide in the bounds of ordinary "
    "numbers.",
    rules=("EXP-5",),
    bugs=("M85",),
    events=("ran-exact", "ran-several"),
    offers={"values": ("exact",)},
    needs=_lists("activations", "relu"),
)
def exact(trial: ExpertsTrial) -> Failure | None:
    """An output that no order of operations rounds is right to the last bit."""
    return _held("exact", trial, trial.layer.exact) if trial.wrong.any() else None


@_experts(
    "one-hot",
    "With a single weight of 1 a layer is one MLP: whatever differs is no rounding of the sum.",
    rules=("EXP-1",),
    bugs=("M52", "M63"),
    events=("ran-one-hot",),
    weights="one-hot",
    offers={"top_k": (2, 3, 4, 6, 8), "absence": ("none",), "repeats": (False,)},
)
def one_hot(trial: ExpertsTrial) -> Failure | None:
    """With one weight of 1 and others of 0, the output is that expert's answer."""
    weights = trial.case.inputs.weights
    alone = ((weights == 1.0).sum(axis=1) == 1) & ((weights != 0.0).sum(axis=1) == 1)
    return _held("one-hot", trial, alone)


@_experts(
    "weight-on-output",
    "On the input a weight goes through the activation: the expert answers another question.",
    rules=("EXP-6",),
    bugs=("M63", "M84"),
    events=("ran-weight-on-output", "ran-weights-differ"),
    offers={"weight_on": ("output",)},
    needs=_lists("weight_on", "output"),
)
def weight_on_output(trial: ExpertsTrial) -> Failure | None:
    """A routing weight scales the output of its expert, once."""
    return _held("weight-on-output", trial) if _weighs(trial, "output") else None


@_experts(
    "weight-on-input",
    "Llama 4 scales what goes into an expert; on the output the activation sees larger numbers.",
    rules=("EXP-7",),
    bugs=("M63", "M84"),
    events=("ran-weight-on-input",),
    offers={"weight_on": ("input",)},
    needs=_lists("weight_on", "input"),
)
def weight_on_input(trial: ExpertsTrial) -> Failure | None:
    """Where it is claimed, a routing weight scales the input of its expert, once."""
    return _held("weight-on-input", trial) if _weighs(trial, "input") else None


def _weighs(trial: ExpertsTrial, where: str) -> bool:
    return trial.case.config.weight_on == where


@_experts(
    "bias-weighted",
    "A bias that is added once a slot and not weighted is a constant offset: losses start high.",
    rules=("EXP-8",),
    bugs=("M04", "M63"),
    events=("ran-biases",),
    offers={"biases": (True,)},
    needs=_lists("biases", True),
)
def bias_weighted(trial: ExpertsTrial) -> Failure | None:
    """Biases are added where they belong: before the activation, and under the routing weight."""
    return _held("bias-weighted", trial) if trial.case.inputs.has_biases else None


@_experts(
    "zero-weight",
    "A weight of 0 is how padding, and a router that is sure, say that an expert does not matter.",
    rules=("EXP-9",),
    bugs=("M48", "M63"),
    events=("ran-zero-weight",),
    weights="zeros",
    offers={"weight_on": ("output",)},
    needs=_lists("weight_on", "output"),
)
def zero_weight(trial: ExpertsTrial) -> Failure | None:
    """A route of weight 0 adds exactly 0 wherever its expert answers a finite number."""
    return _held("zero-weight", trial, _has_zero(trial)) if _weighs(trial, "output") else None


@_experts(
    "zero-weight-overflow",
    "0 times infinity is NaN: an expert that should not matter takes the token with it.",
    level="SHOULD",
    rules=("EXP-10",),
    bugs=("M48",),
    events=("ran-zero-weight-overflow",),
    weights="zeros",
    poison="idle",
    offers={"weight_on": ("output",)},
    needs=_lists("weight_on", "output"),
)
def zero_weight_overflow(trial: ExpertsTrial) -> Failure | None:
    """A route of weight 0 adds exactly 0 even where its expert overflows."""
    if not _weighs(trial, "output"):
        return None
    due = trial.layer.skipping
    wrong = ~due.contains(trial.output) & _has_zero(trial)[:, None]
    if not wrong.any():
        return None
    return experts_failure("zero-weight-overflow", trial.layer, trial.output, wrong, due)


def _has_zero(trial: ExpertsTrial) -> Bools:
    zero: Bools = (trial.layer.present & (trial.case.inputs.weights == 0.0)).any(axis=1)
    return zero


@_experts(
    "absent",
    "A sentinel that is clamped to a real expert runs it: times 0 that is NaN where it overflows.",
    rules=("EXP-11",),
    bugs=("M46", "M47", "M48"),
    events=("ran-some-absent", "ran-absent-first-and-last-not-finite"),
    offers={"absence": ("some", "tokens")},
    poison="nan",
    needs=_lists("absent", True),
)
def absent(trial: ExpertsTrial) -> Failure | None:
    """An absent route adds exactly 0, whatever any expert holds."""
    some = np.asarray(~trial.layer.present.all(axis=1))
    return _held("absent", trial, some)


@_experts(
    "all-absent",
    "A row that no expert writes must be 0, not what the memory held before.",
    rules=("EXP-12",),
    bugs=("M47", "M48"),
    events=("ran-token-absent", "ran-all-absent"),
    offers={"absence": ("tokens", "all")},
    needs=_lists("absent", True),
)
def all_absent(trial: ExpertsTrial) -> Failure | None:
    """A token whose routes are all absent gets exactly 0, in memory that held something else."""
    _stain(trial)
    lost = np.asarray(~trial.layer.present.any(axis=1))
    return _held("all-absent", trial, lost)


def _stain(trial: ExpertsTrial) -> None:
    """Make the same call with every route present, if it is claimed, which fills the memory."""
    inputs = trial.case.inputs
    everywhere = np.where(trial.layer.present, inputs.expert_ids, 0)
    busy = replace(inputs, expert_ids=everywhere, weights=np.ones_like(inputs.weights))
    case = replace(trial.case, inputs=busy)
    if not trial.excuses(case) and not trial.capabilities.computes.refusals(case.config, busy):
        _ = cast(ExpertsTrial, trial.another(case)).native


@_experts(
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
    return _held("unchosen", trial)


@_experts(
    "empty-expert",
    "Offsets that forget an empty expert run every later token through its neighbour's weights.",
    rules=("EXP-14",),
    bugs=("M36", "M41", "M53"),
    events=EMPTY,
    offers={"load": ("one", "two", "first", "last", "every-other"), "experts": (3, 4, 8, 16)},
)
def empty_expert(trial: ExpertsTrial) -> Failure | None:
    """Experts without routes, and experts with one, change nothing for the others."""
    return _held("empty-expert", trial)


@_experts(
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


@_experts(
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
    return _held("slot-order", _of(trial, keep(trial.case, "slots", slots)))


@_experts(
    "repeated",
    "A map of tokens and experts has one place for an expert that holds two slots of a token.",
    rules=("EXP-17",),
    bugs=("M52",),
    events=("ran-repeated",),
    offers={"repeats": (True,), "load": ("one", "two", "uniform"), "top_k": (2, 3, 4, 6, 8)},
    needs=_lists("repeats", True),
)
def repeated(trial: ExpertsTrial) -> Failure | None:
    """An expert that holds several slots of a token is added once for each."""
    ids = np.sort(trial.case.inputs.expert_ids, axis=1)
    again = ((ids[:, 1:] == ids[:, :-1]) & (ids[:, 1:] >= 0)).any(axis=1)
    return _held("repeated", trial, again)


@_experts(
    "batch-split",
    "What other tokens are in a batch must not matter: tiles, counters and places are theirs.",
    rules=("EXP-18",),
    bugs=("M36", "M41", "M53"),
    events=("ran-several", *members("ran-tokens")[1:]),
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
    failure = _held("batch-split", _of(trial, case))
    return None if failure is None else replace(failure, made=case)


@_experts(
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


@_experts(
    "repeatable",
    "A buffer that is kept between calls and not cleared is right the first time alone.",
    rules=("EXP-20",),
    bugs=("M34", "M48"),
    events=("ran-several",),
)
def repeatable(trial: ExpertsTrial) -> Failure | None:
    """Later calls are right as well, and leave the answer of the first as it was."""
    first, case = trial.output, trial.case
    other = replace(case, inputs=replace(case.inputs, hidden=-case.inputs.hidden))
    for later in (case, other):
        if (failure := _held("repeatable", _of(trial, later))) is not None:
            return failure if later is case else replace(failure, made=later)
    differs = ~((first == trial.reread()) | np.isnan(first))
    if not differs.any():
        return None
    t, h = (int(i) for i in np.argwhere(differs)[0])
    summary = f"the first call's output[{t}, {h}] changed during a later one"
    return Failure(stage="repeatable", token=t, summary=summary, details=(call_line(trial.layer),))
