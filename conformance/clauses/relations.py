"""Relations between two answers: what must stay the same when the call only looks different.

Bitwise equality across shapes is impossible (other kernels, other sums), so a relation
checks two things: each side passes the judge on its own, and tokens for which the judge
permits one set only have that set on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.explain.failure import Failure, first_failure, token_failure
from moe_routing.conformance.generators.construct import with_inputs
from moe_routing.conformance.judge import Verdict
from moe_routing.conformance.trial.base import AnyTrial, Unchecked
from moe_routing.conformance.trial.boundary import Received
from moe_routing.conformance.trial.call import Raised
from moe_routing.conformance.trial.trial import Trial
from moe_routing.reference.formats import INPUT_FORMATS, Bools

Ids = npt.NDArray[np.int64]
Poison = Callable[[int, float], npt.ArrayLike]
"""Returns a row of the given size, for a dtype with the given largest number."""

_STAGES = ("logits", "selection", "weights")  # of routed logits, what follows is judged by them


def related(
    trial: Trial,
    case: Case,
    words: str,
    *,
    tokens: npt.NDArray[np.int64] | slice = slice(None),
    back: Callable[[Ids], Ids] = lambda ids: ids,
) -> Failure | None:
    """Judge ``case``, which means the same as the trial's, and compare its answer with the trial's.

    ``words`` names the change for the message; row i of ``case`` is row ``tokens[i]`` of
    the trial's; ``back`` maps its ids to the trial's. Errors: ``Unchecked`` for a case that
    the backend does not claim, because it is too large, for example.
    """
    if not trial.claims(case):
        raise Unchecked(f"with {words} it would not be claimed")
    other = trial.of(case)
    if (failure := first_failure(trial.verdict, *_STAGES)) is not None:
        return failure
    if (failure := first_failure(other.verdict, *_STAGES)) is not None:
        return replace(failure, summary=f"{words}: {failure.summary}")
    return agree(trial, other, words, tokens=tokens, back=back)


def first_of(checks: Iterable[Callable[[], Failure | None]]) -> Failure | None:
    """Return the first failure of several checks. Errors: ``Unchecked`` where none can be made."""
    reasons: list[Unchecked] = []
    made = 0
    for check in checks:
        try:
            failure = check()
        except Unchecked as reason:
            reasons.append(reason)
            continue
        made += 1
        if failure is not None:
            return failure
    if reasons and not made:
        raise reasons[0]
    return None


def agree(
    trial: Trial,
    other: Trial,
    words: str,
    *,
    tokens: npt.NDArray[np.int64] | slice = slice(None),
    back: Callable[[Ids], Ids] = lambda ids: ids,
) -> Failure | None:
    """Compare the id sets of two trials on tokens whose set is unique on both sides."""
    mine = np.sort(trial.verdict.answer.expert_ids[tokens], axis=1)
    theirs = np.sort(back(other.verdict.answer.expert_ids), axis=1)
    unique = trial.bounds.only_reference[tokens] & other.bounds.only_reference
    differs = (mine != theirs).any(axis=1) & unique
    if not differs.any():
        return None
    row = int(np.argmax(differs))
    token = int(np.arange(trial.case.inputs.num_tokens)[tokens][row])
    return token_failure(
        trial.verdict,
        token,
        stage="selection",
        summary=(
            f"expert_ids[{token}] is {mine[row].tolist()}, but {theirs[row].tolist()} with "
            f"{words}; only one set is right"
        ),
    )


def same_bits(first: Received, other: Received, words: str) -> Failure | None:
    """Compare two answers bit by bit, NaN equal to NaN; ``words`` is when ``other`` was read."""
    if first.arrays.keys() != other.arrays.keys():
        return Failure(
            stage="layout",
            summary=f"returned {sorted(first.arrays)}, and {sorted(other.arrays)} {words}",
        )
    for name, array in first.arrays.items():
        now = other.arrays[name]
        for what in ("shape", "dtype"):
            one, two = (getattr(each.records[name], what) for each in (first, other))
            if one != two:
                summary = f"{name} has {what} {one}, and {two} {words}"
                return Failure(stage="layout", summary=summary)
        if array.tobytes() != now.tobytes() and (differ := differing_bits(array, now)).any():
            where = tuple(int(i) for i in np.argwhere(differ)[0])
            return Failure(
                stage="selection" if "ind" in name or "ids" in name else "weights",
                summary=f"{name}{list(where)}={array[where]}, and {now[where]} {words}",
            )
    return None


def differing_bits(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> Bools:
    """Return where two arrays of one dtype differ in bits; any NaN equals any other."""
    if one.dtype.kind != "f":
        return np.asarray(one != other)
    alike = (one == other) & (np.signbit(one) == np.signbit(other))
    differ: Bools = ~(alike | (np.isnan(one) & np.isnan(other)))
    return differ


def reverse_experts(case: Case) -> Case:
    """Return ``case`` with expert e renamed to E - 1 - e; groups stay groups."""
    inputs = case.inputs
    changes = {
        name: getattr(inputs, name)[::-1]
        for name in ("gate_weight", "gate_bias", "selection_bias", "gate_delta", "per_expert_scale")
        if getattr(inputs, name) is not None
    }
    if inputs.logits is not None:
        changes["logits"] = inputs.logits[:, ::-1]
    if inputs.expert_table is not None:
        changes["expert_table"] = inputs.num_experts - 1 - inputs.expert_table
    return with_inputs(case, **changes)


def raised(trial: AnyTrial) -> Failure | None:
    """Return the failure of a call that raised but should have been answered, or None."""
    try:
        _ = trial.native
    except Raised as error:
        return Failure(stage="layout", summary=str(error), details=error.where, made=error.case)
    return None


def wrong_weights(verdict: Verdict) -> Failure | None:
    """Return the first wrong weight, or None.

    Errors: ``Unchecked`` where no token has scores by which to judge it.
    """
    if len(verdict.judged) and not verdict.judged.any():
        raise Unchecked("it has no token whose scores are defined")
    return first_failure(verdict, "weights")


def wrote_to_inputs(trial: AnyTrial) -> Failure | None:
    """Return the failure of a call that changed its inputs, or None."""
    if not trial.changed:
        return None
    return Failure(
        stage="layout",
        summary=f"changed its inputs: {', '.join(trial.changed)}; they should be only read",
    )


def poisoned_row(case: Case) -> int:
    """Return the row that is poisoned: the first, the last or another, depending on E and T."""
    return case.config.num_experts % case.inputs.num_tokens


def poisoned(trial: Trial, poison: Poison) -> Trial:
    """Return the trial with one row replaced; without a row, the trial itself."""
    if trial.case.inputs.num_tokens == 0:
        return trial
    return trial.of(trial.once(_poisoned, poison))


def _poisoned(case: Case, poison: Poison) -> Case:
    inputs, row = case.inputs, poisoned_row(case)
    hidden, largest = np.array(inputs.hidden), INPUT_FORMATS[inputs.dtype].largest
    hidden[row] = poison(inputs.hidden_size, largest)
    changes: dict[str, Any] = {"hidden": hidden}
    if inputs.logits is not None:
        changes["logits"] = np.array(inputs.logits)
        changes["logits"][row] = poison(inputs.num_experts, largest)
    return with_inputs(case, **changes)


def nan(size: int, largest: float) -> npt.ArrayLike:
    """Return a row of NaN."""
    return np.full(size, np.nan, np.float32)


def zero(size: int, largest: float) -> npt.ArrayLike:
    """Return a row of zeros."""
    return np.zeros(size, np.float32)


def overflowing(size: int, largest: float) -> npt.ArrayLike:
    """Return a row of the largest numbers, of alternating sign."""
    return (np.where(np.arange(size) % 2, -1.0, 1.0) * largest).astype(np.float32)
