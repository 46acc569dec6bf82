"""Clauses of the chapter on repetition (docs/spec/repetition.md)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.clauses.registry import clause
from moe_routing.conformance.clauses.relations import (
    differing_bits,
    reverse_experts,
    same_bits,
)
from moe_routing.conformance.explain.failure import Failure, first_failure, token_failure
from moe_routing.conformance.generators.choices import Focus
from moe_routing.conformance.generators.construct import take_tokens
from moe_routing.conformance.trial.boundary import receive
from moe_routing.conformance.trial.trial import Trial
from moe_routing.implementations import Capabilities

Rows = npt.NDArray[np.intp]

_STAGES = ("logits", "selection", "weights")
_LATER = 17
"""The calls that follow before an answer is read again: rings of 2 to 16 buffers come round."""

_HELD = 2**15
"""The most numbers ``T * E`` over all calls whose answers are held at once."""

_SMALL = Focus(recipes=("table", "lattice", "normal"))


@clause(
    "repetition.answers-stay",
    "MUST",
    why="Backward passes, pipelines and replay read an answer long after the call; a ring of "
    "buffers has been written over by then.",
    rules=("REP-1", "INV-1"),
    bugs=("M34",),
    events=("clear-winners", "any-case"),
    focus=_SMALL,
    most=30,
)
def answers_stay(trial: Trial) -> Failure | None:
    """An answer stays as it was, however many calls follow."""
    first, other = trial.received, trial.once(_other)
    count = max(3, min(_LATER, _HELD // max(1, other.inputs.num_tokens * other.config.num_experts)))
    held = [trial.of(other).native for _ in range(count)]
    later = receive(trial.native, trial.case.config, trial.case.inputs.num_tokens, hides=True)
    return same_bits(first, later, f"after {len(held)} other calls")


@clause(
    "repetition.inputs-read-anew",
    "MUST",
    why="An optimizer updates weights in place; a gate that was packed, cast or transposed once "
    "for each array routes by the weights of the first step.",
    rules=("REP-2", "SEL-7"),
    bugs=("M05",),
    events=("clear-winners", "bias-decides", "bfloat16-input"),
    focus=_SMALL,
)
def inputs_read_anew(trial: Trial) -> Failure | None:
    """A call is answered by what its arrays hold now, not by what they held in an earlier call."""
    if (failure := first_failure(trial.verdict, *_STAGES)) is not None:
        return failure
    updated = trial.updated(trial.once(_other))
    if (failure := first_failure(updated.verdict, *_STAGES)) is not None:
        words = "with new values written into the arrays of an earlier call"
        return replace(failure, summary=f"{words}: {failure.summary}")
    return None


@clause(
    "repetition.two-threads",
    "MUST",
    why="Servers run layers and requests side by side; scratch memory that belongs to the "
    "module or to the library is then written by two calls at once.",
    rules=("REP-3",),
    bugs=("M34",),
    events=("clear-winners",),
    needs=lambda capabilities: _no_threads(capabilities),
    focus=_SMALL,
    most=20,
)
def two_threads(trial: Trial) -> Failure | None:
    """Two threads that call at the same time get the answers that each gets alone."""
    for mine in trial.at_once(trial.once(_other)):
        if (failure := first_failure(mine.verdict, *_STAGES)) is not None:
            return replace(failure, summary=f"with two threads calling: {failure.summary}")
    return None


def _no_threads(capabilities: Capabilities) -> str | None:
    return None if capabilities.threads else "the capabilities have threads=False"


@clause(
    "repetition.every-time",
    "MUST",
    why="A race or an autotuner's switch is right in most calls; one wrong call in fifty ends a "
    "run of a million steps.",
    rules=("REP-4", "INV-1"),
    bugs=("M34",),
    events=("clear-winners",),
    focus=_SMALL,
    most=3,
)
def every_time(trial: Trial) -> Failure | None:
    """The same call, made again and again, has the same bits wherever one set alone is right."""
    rows = np.flatnonzero(trial.bounds.only_reference)
    for number, again in enumerate(trial.repeated(), start=2):
        if (failure := _unlike(trial, again, rows, f"in call {number} of the same")) is not None:
            return failure
    return None


def _unlike(trial: Trial, again: Trial, rows: Rows, words: str) -> Failure | None:
    """Compare the bits of two answers in these rows."""
    for name, stage in (("expert_ids", "selection"), ("weights", "weights")):
        one, now = (getattr(each.received.answer, name)[rows] for each in (trial, again))
        if one.tobytes() != now.tobytes() and (differ := differing_bits(one, now)).any():
            row = int(np.argmax(differ.any(axis=1)))
            summary = (
                f"{name}[{rows[row]}] is {one[row].tolist()} in the first call, "
                f"and {now[row].tolist()} {words}"
            )
            return token_failure(again.verdict, int(rows[row]), stage=stage, summary=summary)
    return None


def _other(case: Case) -> Case:
    """Return a call of the same shapes with other answers: experts renamed, tokens reversed."""
    return take_tokens(reverse_experts(case), range(case.inputs.num_tokens)[::-1])
