"""Clauses of the chapter on layout (docs/spec/layout.md)."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.clauses.registry import clause
from moe_routing.conformance.explain.failure import Failure, at, first_failure
from moe_routing.conformance.explain.numbers import show
from moe_routing.conformance.judge.logits import format_of
from moe_routing.conformance.trial.boundary import Malformed
from moe_routing.conformance.trial.trial import Trial
from moe_routing.reference.formats import FORMATS, INPUT_FORMATS

_INTEGERS = ("int16", "int32", "int64", "uint16", "uint32", "uint64")


@clause(
    "layout.well-formed",
    "MUST",
    why="An answer of another shape or kind of number cannot be judged, nor used by a kernel; "
    "where this fails, the other clauses can say little.",
    rules=("LAY-1", "LAY-4", "LAY-5", "LAY-9", "LAY-11", "ROB-1", "ROB-2", "WGT-2"),
    bugs=("M38", "M52", "M53", "M55", "M58"),
    events=("any-case", "empty-batch", "one-token"),
    without_tokens=True,
)
def well_formed(trial: Trial) -> Failure | None:
    """The answer is one of the four layouts, with the shapes and kinds of number it promises."""
    try:
        received = trial.received
    except Malformed as error:
        return Failure(stage="layout", summary=str(error), made=error.case)
    weights, judged = received.answer.weights, trial.verdict.judged & trial.verdict.decided
    bad = np.isnan(weights) & judged[:, None]
    if bad.any():
        t, k = np.argwhere(bad)[0]
        return Failure(
            stage="layout",
            token=int(t),
            summary=f"{at('weights', t, k)}=nan, but the token's scores are finite",
        )
    return None


@clause(
    "layout.dtypes",
    "MUST",
    why="Kernels index with what they are given: 8-bit ids wrap at 256 experts, float ids round.",
    rules=("LAY-9", "LAY-4", "LAY-6", "LOG-5", "PIPE-4"),
    bugs=("M13", "M44"),
    events=("any-case", "winner-above-255"),
    without_tokens=True,
)
def dtypes(trial: Trial) -> Failure | None:
    """Ids are integers of 16 bits or more (int32 in the flat layout); logits, where returned,
    are stored in a type that holds all of the permitted one, or of the one that was given.
    """
    received = trial.received
    flat = received.layout == "FlatRouting"
    for name in ("expert_ids", "token_indices", "expert_indices"):
        record, allowed = received.records.get(name), ("int32",) if flat else _INTEGERS
        if record is not None and record.dtype not in allowed:
            return Failure(
                stage="layout",
                summary=f"{name} are {record.dtype}, but should be {' or '.join(allowed)}",
            )
    given = trial.capabilities.takes == "logits"  # then nothing was computed that could be rounded
    least = format_of(trial.case.config.logits_dtype, trial.case.inputs)
    if given:
        least = INPUT_FORMATS[trial.case.inputs.dtype_of("logits")]
    record, form = received.records.get("logits"), FORMATS.get(received.answer.logits_dtype)
    if record is None or trial.capabilities.logits == "copy":
        return None
    if form and form.precision >= least.precision and form.max_exponent >= least.max_exponent:
        return None
    return Failure(
        stage="logits",
        summary=f"logits are stored in {record.dtype}, but should be in {least.name} or better",
    )


@clause(
    "layout.contiguous",
    "SHOULD",
    why="Kernels downstream take pointers; an expanded or transposed answer is read wrongly or "
    "copied in silence.",
    rules=("LAY-8",),
    bugs=("M40",),
    events=("any-case", "strided-input", "several-selected", "one-token"),
    without_tokens=True,
)
def contiguous(trial: Trial) -> Failure | None:
    """The arrays of the answer are contiguous in memory."""
    for name, record in trial.received.records.items():
        if name != "logits" and not record.contiguous:
            return Failure(
                stage="layout",
                summary=f"{name} of shape {record.shape} is not contiguous, but should be",
            )
    return None


@clause(
    "layout.flat-token-order",
    "MUST",
    why="The kernels that take flat routes find a token's routes by position: indices out of "
    "order give tokens each other's experts.",
    rules=("LAY-4",),
    bugs=("M52",),
    layout="FlatRouting",
    events=("any-case", "one-token"),
)
def flat_token_order(trial: Trial) -> Failure | None:
    """Flat token indices ascend, K to a token, and its shared slots."""
    config, tokens = trial.case.config, trial.received.arrays["token_indices"]
    slots = config.top_k + (config.shared_slots.count if config.shared_slots else 0)
    expected = np.repeat(np.arange(trial.case.inputs.num_tokens), slots)
    if (tokens == expected).all():
        return None
    i = int(np.argmax(tokens != expected))
    return Failure(
        stage="layout",
        token=int(expected[i]),
        summary=(
            f"{at('token_indices', i)}={tokens[i]}, but should be {expected[i]}: "
            f"routes go token by token, {slots} to each"
        ),
    )


@clause(
    "layout.flat-pairing",
    "MUST",
    why="Scores sorted apart from their experts pair every weight with a wrong expert.",
    rules=("LAY-2",),
    bugs=("M52",),
    layout="FlatRouting",
    events=("weights-apart", "one-token"),
)
def flat_pairing(trial: Trial) -> Failure | None:
    """Entry i of the flat arrays pairs one token, one of its experts, and that expert's weight."""
    return first_failure(trial.verdict, "selection", "weights")


@clause(
    "layout.map-zero-off-route",
    "MUST",
    why="Dense probabilities are summed and permuted whole; what lies off the route leaks into "
    "other experts.",
    rules=("LAY-5",),
    bugs=("M52", "M55"),
    layout="RoutingMap",
    events=("any-case", "one-token"),
)
def map_zero_off_route(trial: Trial) -> Failure | None:
    """Probabilities off the routing map are exactly 0."""
    arrays = trial.received.arrays
    wrong = ~arrays["routing_map"] & (arrays["probs"] != 0) & trial.verdict.judged[:, None]
    if not wrong.any():
        return None
    t, e = np.argwhere(wrong)[0]
    return Failure(
        stage="layout",
        token=int(t),
        summary=f"{at('probs', t, e)}={show(arrays['probs'][t, e])} off the map, but should be 0",
    )
