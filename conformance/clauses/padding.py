"""Clauses of the chapter on padding (docs/spec/padding.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from moe_routing.conformance.calls.experts import ExpertsCase
from moe_routing.conformance.calls.padding import PaddedCase
from moe_routing.conformance.clauses.registry import Check, clause
from moe_routing.conformance.events.padding import nan_where_absent
from moe_routing.conformance.explain import story
from moe_routing.conformance.explain.experts import experts_failure
from moe_routing.conformance.explain.failure import Failure, at, first_failure
from moe_routing.conformance.explain.numbers import show
from moe_routing.conformance.generators.choices import Focus
from moe_routing.conformance.generators.experts import Wishes, choose_experts_case
from moe_routing.conformance.generators.padding import choose_padded_case
from moe_routing.conformance.generators.seeds import Seeded
from moe_routing.conformance.trial.base import Unchecked
from moe_routing.conformance.trial.experts import ExpertsTrial
from moe_routing.conformance.trial.padding import PaddingTrial
from moe_routing.implementations import Capabilities

FEW = 25
"""The cases that are drawn for a clause."""


def _padding(
    name: str, why: str, *, padding: dict[str, Any] | None = None, **parts: Any
) -> Callable[[Check], Check]:
    """Register a clause about calls of ``route_padded``."""

    def strategy(capabilities: Capabilities) -> Seeded[PaddedCase]:
        offers = {n: _among(values) for n, values in (padding or {}).items()}
        return Seeded(lambda choose: choose_padded_case(choose, capabilities, Focus(), offers))

    register: Callable[[Check], Check] = clause(
        f"padding.{name}",
        "MUST",
        why=why,
        method="route_padded",
        strategy=strategy,
        **{"most": FEW, **parts},
    )
    return register


def _among(values: Any) -> Callable[[Any], list[Any]]:
    return lambda offered: [each for each in offered if each in values]


def _call(trial: PaddingTrial) -> tuple[str, ...]:
    valid, told = trial.facts.valid, trial.case.inputs.told
    shown = "".join("x" if each else "." for each in valid[:64])
    line = f"padding   {(~valid).sum()} of {valid.size} tokens, told by {told}: {shown}"
    return story.call_line(trial.case.config, trial.case.inputs.router), line


def _inert(trial: PaddingTrial) -> Failure | None:
    """Return the failure of the first slot of padding that is not the sentinel with weight 0."""
    ids, weights, lost = trial.padded_ids, trial.padded_weights, np.flatnonzero(~trial.facts.valid)
    for stage, wrong in (("selection", ids != trial.nobody), ("weights", weights != 0.0)):
        if wrong.any():
            p, k = (int(i) for i in np.argwhere(wrong)[0])
            t = int(lost[p])
            words = (
                f"{at('expert_ids', t, k)}={ids[p, k]}, but token {t} is padding, and no expert "
                f"is {trial.nobody} here"
                if stage == "selection"
                else f"{at('weights', t, k)}={show(weights[p, k])}, but token {t} is padding: 0"
            )
            return Failure(stage=stage, token=t, summary=words, details=_call(trial))
    return None


def _tokens(trial: PaddingTrial) -> Failure | None:
    """Return the failure of the first token that is not routed as without padding."""
    found = first_failure(trial.verdict, "selection", "weights", "logits")
    if found is None or found.token is None:
        return found
    place = int(np.flatnonzero(trial.facts.valid)[found.token])
    note = f"token {found.token} of the tokens without padding, {place} of the batch"
    details = (*_call(trial), f"place     {note}", *found.details[1:])
    return replace(found, token=place, details=details, view=None)


def _whole(trial: PaddingTrial) -> Failure | None:
    return _inert(trial) or _tokens(trial)


@_padding(
    "inert",
    "Padding that is routed takes rows, capacity and load from tokens, and an expert's time.",
    rules=("PAD-1", "PAD-2"),
    bugs=("M46", "M47", "M55"),
    events=(
        *("padded-some", "padded-last", "padded-between", "padded-first"),
        "padded-tokens-above-1024",
    ),
)
def inert(trial: PaddingTrial) -> Failure | None:
    """Padding gets the claimed sentinel in every slot, and weights of 0."""
    if trial.facts.valid.all():
        raise Unchecked("there is no padding")
    return _inert(trial)


@_padding(
    "tokens",
    "A mask that shifts, compacts or flips routes other tokens than the model computed.",
    rules=("PAD-3",),
    bugs=("M41", "M55"),
    events=(
        *("padded-some", "padded-last", "padded-between", "padded-first"),
        "padded-tokens-above-1024",
    ),
)
def tokens(trial: PaddingTrial) -> Failure | None:
    """Tokens are routed in their places as they are without padding."""
    return _tokens(trial)


@_padding(
    "told",
    "Two functions of one file may take masks that mean opposite things; a count says nothing of "
    "padding in between.",
    rules=("PAD-4",),
    bugs=("M55",),
    events=("padded-by-count", "padded-by-valid", "padded-by-padding"),
    padding={"padding": ("last", "first", "anywhere")},
)
def told(trial: PaddingTrial) -> Failure | None:
    """Padding is what the claimed convention says: a count, or a mask of either polarity."""
    return _whole(trial)


@_padding(
    "not-finite",
    "Nothing was computed for padding: its memory holds NaN as often as zeros.",
    rules=("PAD-5",),
    bugs=("M31", "M48"),
    events=("padded-nan", "padded-infinite"),
    padding={"padding's hidden states": ("nan", "infinite", "large")},
)
def not_finite(trial: PaddingTrial) -> Failure | None:
    """NaN and infinities in padding leave its weights 0, and every token as it is."""
    return _whole(trial)


@_padding(
    "all-or-none",
    "A batch of padding alone is what a rank gets that has run out of requests.",
    rules=("PAD-6",),
    bugs=("M53", "M55"),
    events=("padded-all", "padded-none"),
    padding={"padding": ("all", "none")},
)
def all_or_none(trial: PaddingTrial) -> Failure | None:
    """A batch of padding alone routes nothing, and one without any every token."""
    return _whole(trial)


@_padding(
    "written",
    "A captured graph runs on buffers of the largest batch: what padding leaves unwritten is the "
    "last batch's.",
    rules=("PAD-7",),
    bugs=("M34", "M48"),
    events=("padded-some",),
)
def written(trial: PaddingTrial) -> Failure | None:
    """After a call without padding, whose answer filled every slot, padding is as inert."""
    inputs = replace(trial.case.inputs, real=np.ones(trial.case.num_tokens, np.int64))
    _ = trial.of(replace(trial.case, inputs=inputs)).native
    return _whole(trial)


def _absent(capabilities: Capabilities) -> str | None:
    listed = capabilities.computes.absent
    return None if True in listed else f"computes.absent={listed} has no True"


def _ran(capabilities: Capabilities) -> Seeded[ExpertsCase]:
    wishes = Wishes(offers={"absence": ("tokens",), "tokens": (2, 3, 5, 8, 17)})

    def make(choose: Any) -> ExpertsCase:
        case = choose_experts_case(choose, capabilities, wishes)
        return nan_where_absent(case) or case

    return Seeded(make)


@clause(
    "padding.experts",
    "MUST",
    why="A sentinel that is clamped to an expert runs it on what padding holds, and 0 times NaN is "
    "NaN: it spreads through the next attention.",
    rules=("PAD-8",),
    bugs=("M46", "M47", "M48"),
    events=("padded-experts",),
    method="experts",
    strategy=_ran,
    needs=_absent,
    most=FEW,
)
def experts(trial: ExpertsTrial) -> Failure | None:
    """A token without routes, whatever it holds, gets exactly 0, and leaves others as they are."""
    wrong = trial.wrong
    return experts_failure("padding", trial.layer, trial.output, wrong) if wrong.any() else None
