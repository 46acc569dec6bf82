"""Events of gradients: the gate's side, with a matrix that is not symmetric."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.gradients import Makes, differentiated, flows, rows_of
from moe_routing.conformance.judge.gradients import GradientFacts
from moe_routing.implementations import Capabilities

GATE = [[1.0, -2.0, 0.5], [0.0, 1.0, 2.0], [-1.0, 0.5, 1.0], [2.0, 1.0, -0.5]]
HIDDEN = [[1.0, 0.5, -1.0], [0.5, -2.0, 1.0], [2.0, 1.0, 0.25]]


def gate_of(experts: int) -> npt.NDArray[np.float32]:
    """Return a gate ``[experts, 3]`` without symmetry, no two of whose rows are alike."""
    e = np.arange(len(GATE), max(experts, len(GATE)))[:, None]
    more = (e * [3, 5, 7] % [29, 31, 27] - 14) / 8.0
    return np.vstack([GATE, more])[:experts].astype(np.float32)


def gated(*, top_ks: tuple[int, ...] = (2, 1), **parts: Any) -> Makes:
    """Return what makes cases with hidden states and a gate of different widths."""
    tables = rows_of(top_ks=top_ks, **parts)

    def make(capabilities: Capabilities) -> Iterator[Case]:
        if capabilities.takes != "logits":
            yield from map(_with_gate, tables(capabilities))

    return make


def gated_or_given(**parts: Any) -> Makes:
    """Return what makes cases of a gate, or of given logits for a backend that takes those."""

    def make(capabilities: Capabilities) -> Iterator[Case]:
        makes = rows_of if capabilities.takes == "logits" else gated
        yield from makes(**parts)(capabilities)

    return make


def _with_gate(case: Case) -> Case:
    """Return the case with the hidden states and a gate of as many experts."""
    gate = gate_of(case.config.num_experts)
    hidden = np.resize(np.array(HIDDEN, np.float32), (case.inputs.num_tokens, 3))
    arrays: dict[str, Any] = {"hidden": hidden, "gate_weight": gate}
    if case.inputs.gate_delta is not None:
        arrays["gate_delta"] = -gate[::-1] / 2.0
    if case.inputs.hidden_scale is not None:
        arrays["hidden_scale"] = np.array([0.5, -1.0, 2.0], np.float32)
    return replace(case, inputs=replace(case.inputs, **arrays))


def _part(slug: str, statement: str, name: str, **parts: Any) -> None:
    def occurs(facts: GradientFacts) -> bool:
        return _any_of(facts, name) and flows(facts, name) and _wide(facts)

    differentiated(slug, statement, occurs, gated(**parts))


def _any_of(facts: GradientFacts, name: str) -> bool:
    """Return whether the call has an input, which is not 0 throughout."""
    array = getattr(facts.bounds.inputs, name)
    return array is not None and bool(np.any(array))


def _wide(facts: GradientFacts) -> bool:
    gate = facts.bounds.inputs.gate_weight
    return gate.shape[0] != gate.shape[1] or not np.array_equal(gate, gate.T)


def exact_sum(case: Case) -> Case | None:
    """Return the case with a gate of zeros and hidden states of small integers, 257 tokens.

    All logits are 0, so the gradients of softmax and sigmoid are dyadic, and sums of their products
    exact in float32.
    """
    if case.inputs.num_tokens < 257:
        return None
    t, h = np.arange(case.inputs.num_tokens)[:, None], np.arange(3)
    arrays: dict[str, Any] = {
        "hidden": ((t * 3 + h * 5) % 8 + 1.0).astype(np.float32),
        "gate_weight": np.zeros((case.config.num_experts, 3), np.float32),
    }
    if case.inputs.gate_delta is not None:
        arrays["gate_delta"] = arrays["gate_weight"]
    if case.inputs.hidden_scale is not None:
        arrays["hidden_scale"] = np.ones(3, np.float32)
    return replace(case, inputs=replace(case.inputs, logits=None, **arrays))


def _summed(capabilities: Capabilities) -> Iterator[Case]:
    tables = rows_of(top_ks=(2, 1), rows=np.zeros((257, 4)), wants=PLAIN)
    if capabilities.takes != "logits":
        yield from (made for case in tables(capabilities) if (made := exact_sum(case)))


def _scaled(capabilities: Capabilities) -> Iterator[Case]:
    """Yield cases of scaled experts; the scale comes after the logits, which may be given."""
    yield from gated_or_given(per_expert_scale=[0.5, 2.0, -1.0, 1.5])(capabilities)


def _sums_exactly(facts: GradientFacts) -> bool:
    inputs = facts.bounds.inputs
    still = not inputs.gate_weight.any() and inputs.gate_delta is None
    return inputs.num_tokens > 256 and still and flows(facts, "gate_weight")


PLAIN = {"renormalize": None, "logit ops": lambda ops: "input_norm" not in ops}

differentiated(
    "exact-sum",
    "a gate of zeros, whose gradient is an exact sum over more than 256 tokens",
    _sums_exactly,
    _summed,
)
_part("gate", "a gate that is not symmetric, and a gradient that is not 0", "gate_weight")
_part(
    "delta",
    "a delta on a gate that is not symmetric",
    "gate_delta",
    wants={"optional arrays": lambda parts: "gate_delta" in parts},
)
_part(
    "gate-bias",
    "a linear bias, and a gradient of it that is not 0",
    "gate_bias",
    gate_bias=[0.5, -0.25, 1.0, 0.0],
)
differentiated(
    "expert-scale",
    "experts with scales of their own, and a gradient of them that is not 0",
    lambda f: _any_of(f, "per_expert_scale") and flows(f, "per_expert_scale"),
    _scaled,
)
differentiated(
    "expert-scale-alone",
    "one expert a token, with a scale of its own that is not 1",
    lambda f: f.bounds.config.top_k == 1 and _any_of(f, "per_expert_scale") and flows(f, "logits"),
    rows_of(top_ks=(1,), per_expert_scale=[0.5, 2.0, -1.0, 1.5], wants={"renormalize": None}),
)
differentiated(
    "expert-scale-by-zero",
    "experts with scales of their own, beside a routed scaling factor of 0",
    lambda f: (
        _any_of(f, "per_expert_scale")
        and f.bounds.config.scale == 0.0
        and bool(f.bounds.judged.any())
    ),
    rows_of(per_expert_scale=[0.5, 2.0, -1.0, 1.5], wants={"scale": 0.0}),
)


def _widened(width: int) -> Makes:
    """Return what makes cases of a wide gate: its last column is the last of three, the rest 0."""

    def make(capabilities: Capabilities) -> Iterator[Case]:
        for case in gated()(capabilities):
            names = ("hidden", "gate_weight", "gate_delta", "hidden_scale")
            given = {name: a for name, a in case.inputs.arrays().items() if name in names}
            wide: dict[str, Any] = {
                name: np.insert(a, [2] * (width - 3), 0.0, axis=-1) for name, a in given.items()
            }
            yield replace(case, inputs=replace(case.inputs, logits=None, **wide))

    return make


def _columns(most: int) -> None:
    def occurs(facts: GradientFacts) -> bool:
        found = facts.reference.gate_weight
        return found is not None and bool(np.nan_to_num(found)[:, most:].any())

    statement = f"gradients of a gate of more than {most:,} columns, not 0 beyond them"
    differentiated(f"columns-above-{most}", statement, occurs, _widened(most + 8))


for _most in (128, 4096):
    _columns(_most)


def _of_many(capabilities: Capabilities) -> Iterator[Case]:
    """Yield cases of experts the last two of which win, one after the other."""
    for case in gated(rows=np.zeros((3, _MANY + 2)))(capabilities):
        gate = np.array(case.inputs.gate_weight)
        gate[-2:] = [[0.0, -4.0, 2.0], [4.0, 2.0, -2.0]]
        yield replace(case, inputs=replace(case.inputs, logits=None, gate_weight=gate))


_MANY = 512
differentiated(
    f"experts-above-{_MANY}",
    f"gradients of more than {_MANY} experts, not 0 beyond them",
    lambda f: (
        f.reference.gate_weight is not None
        and bool(np.nan_to_num(f.reference.logits)[:, _MANY:].any())
        and bool(np.nan_to_num(f.reference.gate_weight)[_MANY:].any())
    ),
    _of_many,
)
_part(
    "hidden-scale",
    "an input norm with a scale, and a gradient of it that is not 0",
    "hidden_scale",
    wants={"logit ops": lambda ops: "input_norm" in ops},
)
