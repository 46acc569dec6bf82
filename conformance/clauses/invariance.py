"""Clauses of the chapter on invariance (docs/spec/invariance.md)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.clauses.batches import Batch
from moe_routing.conformance.clauses.registry import clause
from moe_routing.conformance.clauses.relations import (
    first_of,
    related,
    reverse_experts,
    same_bits,
    wrote_to_inputs,
)
from moe_routing.conformance.events import members
from moe_routing.conformance.events.series import SERIES
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.generators.axes import KERNEL_SIZES
from moe_routing.conformance.generators.choices import Focus
from moe_routing.conformance.generators.construct import take_tokens, with_inputs
from moe_routing.conformance.generators.inputs import in_rows, with_strides
from moe_routing.conformance.trial.base import Unchecked
from moe_routing.conformance.trial.boundary import receive
from moe_routing.conformance.trial.trial import Trial
from moe_routing.implementations import Capabilities
from moe_routing.reference.formats import INPUT_FORMATS

_MOST = 2**15
"""The most numbers in the logits of a batch that is made of a case's tokens."""

_SHIFT = 2.0
_EXACT = Focus(recipes=("table", "lattice", "one-sided", "near-ties", "bfloat16-steps", "normal"))


@clause(
    "invariance.repeatable",
    "MUST",
    why="Recomputed activations, replayed rollouts and debugging all assume that the same call "
    "gives the same answer; races, atomics and reused workspaces break it.",
    rules=("INV-1", "SEL-3"),
    bugs=("M33", "M34"),
    events=("tie-at-cut", "any-case"),
    without_tokens=True,
)
def repeatable(trial: Trial) -> Failure | None:
    """The same call, repeated, gives the same bits, and an answer stays as it was when another
    call is made.
    """
    first, again = trial.received, trial.of(trial.case).received
    if (failure := same_bits(first, again, "when the same call was repeated")) is not None:
        return failure
    _ = trial.of(trial.once(_reversed)).native
    later = receive(trial.native, trial.case.config, trial.case.inputs.num_tokens, hides=True)
    return same_bits(first, later, "after another call")


def _reversed(case: Case) -> Case:
    return take_tokens(case, range(case.inputs.num_tokens)[::-1])


@clause(
    "invariance.token-order",
    "MUST",
    why="A token's experts depend on its own hidden state; a position that leaks in (a tail, a "
    "block, an index) shows when the rows trade places.",
    rules=("INV-2", "PIPE-1"),
    bugs=("M18", "M52", "M55"),
    events=("clear-winners", "batch-above-8", "tokens-equal-experts"),
    focus=_EXACT,
)
def token_order(trial: Trial) -> Failure | None:
    """Tokens in another order are routed as before, each with its own row."""
    return related(
        trial,
        trial.once(_reversed),
        "the tokens in reverse order",
        tokens=np.arange(trial.case.inputs.num_tokens)[::-1],
    )


@clause(
    "invariance.expert-relabel",
    "MUST",
    why="Scores decide, not ids: padded lanes, packed index bits and tails favour some ids.",
    rules=("INV-4",),
    bugs=("M30", "M33", "M35", "M36"),
    events=("clear-winners",),
    focus=_EXACT,
)
def expert_relabel(trial: Trial) -> Failure | None:
    """Renamed experts win under their new names, where no tie decides."""
    last = trial.case.config.num_experts - 1
    return related(
        trial,
        trial.once(reverse_experts),
        "the experts renamed e -> E - 1 - e",
        back=lambda ids: last - ids,
    )


@clause(
    "invariance.batch-split",
    "MUST",
    why="A token alone, in a small batch and in a large one takes other kernels; it must not "
    "take other experts.",
    rules=("INV-3", "PIPE-1"),
    bugs=("M03", "M04", "M10", "M16", "M25", "M35", "M38", "M41", "M52", "M53"),
    events=(
        "clear-winners",
        "batch-above-8",
        "batch-above-16",
        "batch-above-256",
        "batch-above-2048",
        "ragged-batch",
        "ragged-routes",
        *members("batch"),
        *members("sizes"),
    ),
    focus=_EXACT,
)
def batch_split(trial: Trial) -> Failure | None:
    """A token is routed alike alone and in any batch, across the sizes where paths change."""
    count = trial.case.inputs.num_tokens
    if count == 0:
        raise Unchecked("the case has no tokens")
    batch = Batch.of(trial)
    if (failure := batch.failure()) is not None:
        return failure
    if trial.case.recipe == SERIES:  # whose tokens are judged in a batch of each size
        return None
    return first_of(partial(_in_batch, batch, *part) for part in parts_of(trial.case))


def _in_batch(batch: Batch, words: str, tokens: tuple[int, ...]) -> Failure | None:
    """Judge another batch of the tokens of one. Errors: ``Unchecked`` where it is not claimed."""
    case = batch.trial.once(take_tokens, tokens)
    if not batch.trial.claims(case):
        raise Unchecked(f"with {words} it would not be claimed")
    failure = batch.part(batch.trial.of(case), np.array(tokens)).failure()
    if failure is None:
        return None
    return replace(failure, summary=f"{words}: {failure.summary}", case=case)


def parts_of(case: Case) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield batches of a case's tokens, by index: one alone, another, and a larger batch."""
    count = case.inputs.num_tokens
    yield "the first token alone", (0,)
    yield "the last token alone", (count - 1,)
    most = _MOST // case.config.num_experts
    larger = [size for size in KERNEL_SIZES if count < size <= most]
    for size in larger[7 * count % max(1, len(larger)) :][:1]:  # the next one or one far above
        yield f"the tokens repeated to T={size}", tuple(t % count for t in range(size))


@clause(
    "invariance.logit-shift",
    "MUST",
    why="A softmax has no origin; one without max-subtraction, or with a sentinel for a maximum, "
    "has.",
    rules=("INV-5",),
    bugs=("M28",),
    narrow={
        "score": ("softmax",),
        "logit_softcap": (False,),
        "input_norm": (False,),
        "weights_from": ("scores", "masked_scores", "softmax_of_selected"),
    },
    events=("clear-winners",),
    focus=Focus(recipes=("table", "lattice", "one-sided")),
)
def logit_shift(trial: Trial) -> Failure | None:
    """A constant added to all logits of a token changes nothing under a softmax."""
    shifted = trial.once(_shifted)
    if shifted is None:
        raise Unchecked(f"{trial.case.inputs.dtype} does not hold its logits, raised")
    return related(trial, shifted, f"all logits raised by {_SHIFT:g}")


def _shifted(case: Case) -> Case | None:
    """Add a hidden column of ones whose gate column is the shift, or add it to input logits."""
    inputs = case.inputs
    ones = np.ones((inputs.num_tokens, 1), np.float32)
    gate = np.full((inputs.num_experts, 1), _SHIFT, np.float32)
    changes = {
        "hidden": np.hstack([inputs.hidden, ones]),
        "gate_weight": np.hstack([inputs.gate_weight, gate]),
    }
    if inputs.gate_delta is not None:
        changes["gate_delta"] = np.hstack([inputs.gate_delta, 0.0 * gate])
    if inputs.logits is not None:
        changes["logits"] = inputs.logits + np.float32(_SHIFT)
        if not INPUT_FORMATS[inputs.dtype_of("logits")].represents(changes["logits"]).all():
            return None
    return with_inputs(case, **changes)


@clause(
    "invariance.strided-input",
    "MUST",
    why="Kernels that assume rows of H numbers in a line read a sliced or transposed tensor as "
    "another one: at least six projects shipped it.",
    rules=("INV-6",),
    bugs=("M40",),
    events=(
        "strided-input",
        "transposed-hidden",
        "spaced-hidden",
        "transposed-gate",
        "spaced-gate",
        "spaced-bias",
    ),
    needs=lambda capabilities: _no_strides(capabilities),
    focus=_EXACT,
)
def strided_input(trial: Trial) -> Failure | None:
    """Inputs are routed by their values, however they lie in memory."""
    others = {"inputs in rows": _with_rows, "inputs strided": _spaced}
    return first_of(
        partial(related, trial, trial.once(change), words) for words, change in others.items()
    )


def _no_strides(capabilities: Capabilities) -> str | None:
    layouts = capabilities.layouts
    return None if "strided" in layouts else f"the capabilities have layouts={layouts!r}"


def _with_rows(case: Case) -> Case:
    """Return ``case`` with every array laid out in rows."""
    return replace(case, inputs=in_rows(case.inputs))


def _spaced(case: Case) -> Case:
    return replace(case, inputs=with_strides(case.inputs))


@clause(
    "invariance.inputs-unchanged",
    "MUST",
    why="Hidden states are read again by the shared expert and the residual; a router that "
    "normalises, jitters or masks in place corrupts both.",
    rules=("INV-7",),
    bugs=("M61",),
    events=("any-case", "bfloat16-input"),
    without_tokens=True,
)
def inputs_unchanged(trial: Trial) -> Failure | None:
    """The inputs are the same after the call as before it."""
    return wrote_to_inputs(trial)


@clause(
    "invariance.float-mode-unchanged",
    "MUST",
    why="Flushing subnormal numbers to 0 is a mode of the thread: left on, it changes every "
    "computation that follows.",
    rules=("INV-8",),
    bugs=("M61",),
    events=("any-case",),
    without_tokens=True,
)
def float_mode_unchanged(trial: Trial) -> Failure | None:
    """The floating-point mode of the thread is the same after the call as before it."""
    if not trial.modes:
        return None
    return Failure(
        stage="layout",
        summary=f"left changed: {', '.join(trial.modes)}; a call should restore what it sets",
    )
