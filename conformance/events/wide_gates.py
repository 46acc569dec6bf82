"""Events of a gate, or of given logits, in float32 beside hidden states of 16 bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.memory import with_changes
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.gradients import differentiated
from moe_routing.conformance.events.registry import FAMILIES, ROWS, event
from moe_routing.conformance.generators.construct import table_cases, take_tokens
from moe_routing.conformance.judge import Bounds
from moe_routing.conformance.judge.gradients import GradientFacts
from moe_routing.implementations import Capabilities
from moe_routing.reference import RouterInputs
from moe_routing.reference.formats import INPUT_FORMATS

Array = npt.NDArray[np.float32]

_FINE = 2.0**-13  # what float32 holds beside 1, and 16 bits do not
_LARGE = 2.0**10
_VISIBLE = 2.0**-16  # a relative difference that rounding in float32 does not reach
_UNEVEN = np.float32(np.array(ROWS) * (1.0 + 3.0 * 2.0**-9))


def is_wide(inputs: RouterInputs) -> bool:
    """Return whether the gate has more bits than the hidden states."""
    return inputs.gate_dtype == "float32"


def _decides(bounds: Bounds, name: str) -> bool:
    """Return whether a right router may choose otherwise if it rounded this array."""
    bounds = bounds.differing
    inputs = bounds.inputs
    if not is_wide(inputs) or bounds.config.top_k == bounds.config.num_experts:
        return False
    form, array = INPUT_FORMATS[inputs.dtype], inputs.arrays().get(name)
    if array is None or form.represents(array).all():
        return False
    rounded: dict[str, Any] = {name: np.float32(form.round(array))}
    then = Bounds(bounds.config, with_changes(inputs, **rounded), bounds.numerics)
    now = np.sort(bounds.reference.expert_ids, axis=1)
    other = (now != np.sort(then.reference.expert_ids, axis=1)).any(axis=1)
    return bool((bounds.only_reference & (other | ~then.only_reference)).any())


def _wide_cases(capabilities: Capabilities, **parts: Any) -> Iterator[Case]:
    """Yield cases of a gate in float32 beside 16 bits, whose gate can be replaced."""
    offered = tuple(dtype for dtype in capabilities.dtypes if dtype != "float32")
    narrowed = replace(capabilities.narrowed(gate_dtype=("float32",)), dtypes=offered)
    others = parts.pop("wants", {})
    for stored in _STORED:
        wants = {"dtypes": stored, **others}
        for top_k in (2, 1):
            yield from table_cases(narrowed, ROWS, top_k=top_k, wants=wants, **parts)


_STORED: tuple[Callable[[tuple[str, ...]], bool], ...] = (
    lambda dtypes: {*dtypes} == {"float32"},
    lambda dtypes: dtypes[:2] == ("float32", "float32"),
    lambda dtypes: True,
)
"""What to store in float32: all, logits and scores, or what is claimed first."""


def with_gate(case: Case, table: npt.ArrayLike) -> Case | None:
    """Return the case with the logits ``table [T, E]``, which only its gate holds."""
    inputs, numbers = case.inputs, np.asarray(table, np.float32)
    arrays = inputs.arrays()
    if "hidden_scale" in arrays or np.any(arrays.get("gate_delta", 0.0)):
        return None
    types: dict[str, Any] = {"dtype": inputs.dtype, "gate_dtype": inputs.gate_dtype}
    made = RouterInputs.from_logits(numbers, **types)
    changes: dict[str, Any] = {"hidden": made.hidden, "gate_weight": made.gate_weight}
    if inputs.logits is not None:
        changes["logits"] = numbers
    if inputs.gate_delta is not None:
        changes["gate_delta"] = np.zeros_like(made.gate_weight)
    return replace(case, inputs=with_changes(inputs, **changes))


def _steps(case: Case) -> Array:
    """Return numbers ``[E]`` that 16 bits do not tell apart, the best of them last."""
    experts = case.config.num_experts
    rising = np.maximum(np.arange(experts) - (experts - 4.0), 0.0)
    steps: Array = (1.0 + rising * _FINE).astype(np.float32)
    return steps


def _fine_gates(capabilities: Capabilities) -> Iterator[Case]:
    for case in _wide_cases(capabilities):
        table = np.tile(_steps(case), (case.inputs.num_tokens, 1))
        if (made := with_gate(case, table)) is not None:
            yield made if made.inputs.logits is not None else _enlarged(made)


def _enlarged(case: Case) -> Case:
    """Return the case with what its gate holds beside 1, times a large number, as logits."""
    steps, tokens = _steps(case), case.inputs.num_tokens
    hidden = np.float32(np.tile([_LARGE, -_LARGE], (tokens, 1)))
    arrays: dict[str, Any] = {"hidden": hidden, "gate_weight": np.stack([steps, steps**0], axis=1)}
    if case.inputs.gate_delta is not None:
        arrays["gate_delta"] = np.zeros_like(arrays["gate_weight"])
    return replace(case, inputs=with_changes(case.inputs, **arrays))


@event(
    "fine-gate-beside-16-bits",
    "a float32 gate decides by numbers that the 16 bits of the hidden states do not hold",
    lambda b: _decides(b, "gate_weight"),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from _fine_gates(capabilities)


FAMILIES["fine-gate-at"] = "a float32 gate decides by such numbers, in a size where kernels change"


@event(
    "fine-gate-at:8193-tokens",
    "such a float32 gate decides for more than 8,192 tokens",
    lambda b: b.inputs.num_tokens > 8192 and _decides(b, "gate_weight"),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for case in _fine_gates(capabilities):
        yield take_tokens(case, np.arange(8193) % case.inputs.num_tokens)


@event(
    "fine-gate-at:7168-columns",
    "such a float32 gate decides, with hidden states of 7,168 numbers",
    lambda b: b.inputs.hidden_size >= _WIDEST and _decides(b, "gate_weight"),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for case in _fine_gates(capabilities):
        if case.inputs.logits is None:
            yield _widened(case)


_WIDEST = 7168


def _widened(case: Case) -> Case:
    """Return the case with its columns at the ends of wide rows, and zeros between them."""
    names = ("hidden", "gate_weight", "gate_delta")
    made = {name: a for name, a in case.inputs.arrays().items() if name in names}
    wide = {name: np.insert(a, [1] * (_WIDEST - 2), 0.0, axis=1) for name, a in made.items()}
    return replace(case, inputs=with_changes(case.inputs, **wide))


@event(
    "fine-linear-bias-beside-16-bits",
    "a float32 linear bias decides by numbers that the 16 bits of the hidden states do not hold",
    lambda b: _decides(b, "gate_bias"),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from _with_part(capabilities, "gate_bias", _steps)


@event(
    "fine-delta-beside-16-bits",
    "a float32 delta decides by numbers that the 16 bits of the hidden states do not hold",
    lambda b: _decides(b, "gate_delta"),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    def delta(case: Case) -> Array:
        width = case.inputs.hidden_size
        return np.tile(_steps(case)[:, None], (1, width))

    yield from _with_part(capabilities, "gate_delta", delta)


def _with_part(
    capabilities: Capabilities, name: str, made: Callable[[Case], Array]
) -> Iterator[Case]:
    """Yield cases whose gate is 0 and one part of it is not: all logits are that part's."""
    wants = {"optional arrays": lambda parts: name in parts}
    given = {name: np.zeros(4 if name == "gate_bias" else (4, 4))}
    for case in _wide_cases(capabilities, wants=wants, **given):
        inputs = case.inputs
        if inputs.logits is None and inputs.hidden_scale is None:
            arrays: dict[str, Any] = {
                "hidden": np.eye(len(inputs.hidden), inputs.hidden_size, dtype=np.float32),
                "gate_weight": np.zeros_like(inputs.gate_weight),
                name: made(case),
            }
            yield replace(case, inputs=with_changes(inputs, **arrays))


def _all_float32(bounds: Bounds) -> bool:
    """Return whether nothing between logits and weights may be stored in 16 bits."""
    config = bounds.config
    return {config.logits_dtype, config.scores_dtype, config.weights_dtype} == {"float32"}


def _weighs(bounds: Bounds) -> bool:
    """Return whether some weight of the same experts is another one with a rounded gate."""
    bounds = bounds.differing
    inputs, form = bounds.inputs, INPUT_FORMATS[bounds.inputs.dtype]
    if not is_wide(inputs) or not _all_float32(bounds):
        return False
    gate = np.float32(form.round(inputs.gate_weight))
    then = Bounds(bounds.config, with_changes(inputs, gate_weight=gate), bounds.numerics)
    now, other = bounds.reference, then.reference
    same = (now.expert_ids == other.expert_ids).all(axis=1) & bounds.judged
    apart = np.abs(now.weights - other.weights) > _VISIBLE * np.abs(now.weights)
    return bool((same[:, None] & apart).any())


@event(
    "wide-gate-shows-in-weights",
    "a float32 gate whose rounding to the 16 bits of the hidden states changes a weight",
    _weighs,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for case in _wide_cases(capabilities):
        yield from filter(None, [with_gate(case, np.resize(_UNEVEN, _shape(case)))])


def _learns(facts: GradientFacts) -> bool:
    """Return whether a gradient of the gate is one that 16 bits would round, visibly."""
    bounds, found = facts.bounds, facts.reference.gate_weight
    if not is_wide(bounds.inputs) or not _all_float32(bounds) or found is None:
        return False
    rounded = INPUT_FORMATS[bounds.inputs.dtype].round(found)
    return bool((np.abs(rounded - found) > _VISIBLE * np.abs(found)).any())


def _learning(capabilities: Capabilities) -> Iterator[Case]:
    if capabilities.takes != "logits":
        for case in _wide_cases(capabilities):
            yield from filter(None, [with_gate(case, np.resize(_UNEVEN, _shape(case)))])


def _shape(case: Case) -> tuple[int, int]:
    return case.inputs.num_tokens, case.config.num_experts


differentiated(
    "wide-gate",
    "a gate in float32 beside 16 bits, with a gradient that those would round",
    _learns,
    _learning,
)
