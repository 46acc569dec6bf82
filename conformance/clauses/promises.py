"""Clauses on what only some backends promise, each in the chapter that it is stricter than."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from moe_routing.conformance.clauses.invariance import parts_of
from moe_routing.conformance.clauses.registry import clause
from moe_routing.conformance.clauses.relations import differing_bits, first_of
from moe_routing.conformance.events import members
from moe_routing.conformance.explain.failure import Failure, token_failure
from moe_routing.conformance.generators.choices import Focus
from moe_routing.conformance.generators.construct import take_tokens
from moe_routing.conformance.judge.promised import ascending_slots, higher_of_tied
from moe_routing.conformance.trial.base import Unchecked
from moe_routing.conformance.trial.trial import Trial
from moe_routing.implementations import Capabilities, Promises
from moe_routing.reference.checks import shown

_SELECTED = {"expert_table": (False,)}


def _promised(field: str) -> Callable[[Capabilities], str | None]:
    """Return what says why a clause on a promise does not apply, where it is not made."""
    plain = getattr(Promises(), field)

    def lacking(capabilities: Capabilities) -> str | None:
        if getattr(capabilities.promises, field) != plain:
            return None
        return f"the capabilities have promises.{field}={plain!r}"

    return lacking


@clause(
    "selection.ties-to-the-lower-id",
    "MUST",
    why="Who compares two engines id by id, or replays one in the other, needs one rule for ties.",
    rules=("SEL-15",),
    bugs=("M33",),
    narrow=_SELECTED,
    needs=_promised("ties"),
    promise="ties",
    events=("tie-at-cut", "zeros-tie", *members("all-tie")),
    focus=Focus(recipes=("table", "one-sided", "one-hot", "tied-lattice", "crowded")),
)
def ties_to_the_lower_id(trial: Trial) -> Failure | None:
    """Where it is promised, of experts that tie the lower id is selected."""
    verdict = trial.verdict
    if (found := higher_of_tied(verdict)) is None:
        return None
    token, taken, left = found
    summary = (
        f"expert {taken} is selected, but should be expert {left}: their logits and biases are "
        "the same, and promises.ties='lowest'"
    )
    return token_failure(verdict, token, stage="selection", summary=summary)


@clause(
    "layout.slots-descend",
    "MUST",
    why="A consumer that takes the first slot for the best expert, or cuts the last ones off, "
    "reads another expert without a word.",
    rules=("LAY-10",),
    bugs=("M33",),
    narrow=_SELECTED,
    needs=_promised("slots"),
    promise="slots",
    events=(
        *("clear-winners", "bias-decides", "batch-of-many-experts"),
        *("top-k-above-15", "top-k-above-32"),
    ),
)
def slots_descend(trial: Trial) -> Failure | None:
    """Where it is promised, the slots of a token come by descending selection score."""
    if trial.layout == "RoutingMap":
        raise Unchecked("a map has no slots")
    verdict = trial.verdict
    if (found := ascending_slots(verdict)) is None:
        return None
    token, first, second = found
    ids = verdict.answer.expert_ids[token]
    summary = (
        f"slot {first} holds expert {ids[first]} and slot {second} expert {ids[second]}, which "
        "scores more, but should score less: promises.slots='descending'"
    )
    return token_failure(verdict, token, stage="layout", summary=summary)


@clause(
    "invariance.batch-bits",
    "MUST",
    why="Batch-invariant kernels are for those whose training must see the bits of its rollouts: "
    "one that differs in the last place in one size of batch is of no use to them.",
    rules=("INV-9",),
    bugs=("M34",),
    needs=_promised("same_bits"),
    promise="same_bits",
    events=(
        *("clear-winners", "batch-above-8", "batch-above-256", "batch-above-2048"),
        *("batch:128", "batch:512", "batch:1024"),
    ),
)
def batch_bits(trial: Trial) -> Failure | None:
    """Where it is promised, a token's answer has the same bits alone and in any batch."""
    if trial.case.inputs.num_tokens == 0:
        raise Unchecked("the case has no tokens")
    return first_of(partial(_same_rows, trial, *part) for part in parts_of(trial.case))


def _same_rows(trial: Trial, words: str, tokens: tuple[int, ...]) -> Failure | None:
    """Compare another batch of a trial's tokens. Errors: ``Unchecked`` where it is unclaimed."""
    case = trial.once(take_tokens, tokens)
    if not trial.claims(case):
        raise Unchecked(f"with {words} it would not be claimed")
    first, other = trial.received.answer, trial.of(case).received.answer
    for name in ("expert_ids", "weights", "logits"):
        one, two = getattr(first, name), getattr(other, name)
        if one is None or two is None:
            continue
        differ = differing_bits(one[np.array(tokens)], two)
        if differ.any():
            row, place = (int(i) for i in np.argwhere(differ)[0])
            was, now = one[tokens[row], place], two[row, place]
            summary = (
                f"{name}[{tokens[row]}, {place}]={_exactly(was)}, and {_exactly(now)} with "
                f"{words}, but should be the same bits"
            )
            stage = "selection" if name == "expert_ids" else name
            return Failure(stage=stage, summary=summary)
    return None


def _exactly(value: Any) -> str:
    return str(value) if isinstance(value, np.integer) else repr(float(value))


@clause(
    "robustness.served-by",
    "MUST",
    why="A fused kernel that hands its calls to a fallback is right, slow, and never tested.",
    rules=("ROB-16",),
    bugs=("M88",),
    needs=_promised("served_by"),
    promise="served_by",
    events=(
        *("any-case", "batch-above-8", "one-token", "batch-above-2048", "strided-input"),
        *("float32-input", "bfloat16-input", "float16-input"),
        *("top-k-above-15", "top-k-above-32", "experts-above-1024"),
    ),
    without_tokens=True,
)
def served_by(trial: Trial) -> Failure | None:
    """Where it is promised, each call that is claimed is served by a kernel that is named."""
    promised, kernel = trial.capabilities.promises.served_by, getattr(trial.native, "kernel", None)
    if kernel in promised:
        return None
    names = " or ".join(map(repr, promised))
    said = "names no kernel" if kernel is None else f"was served by {shown(kernel)}"
    fix = "limit the claims to what that kernel serves, or name it in the answer's kernel"
    return Failure(stage="layout", summary=f"{said}, but should be by {names}", details=(fix,))
