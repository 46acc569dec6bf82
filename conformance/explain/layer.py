"""Why an output of a layer is wrong, in words: the call, its slots, its shared expert."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from moe_routing.conformance.explain.experts import added, permitted, slot_lines
from moe_routing.conformance.explain.failure import Failure, at
from moe_routing.conformance.explain.numbers import show
from moe_routing.conformance.explain.story import call
from moe_routing.conformance.judge.layer import LayerFacts, Routed
from moe_routing.reference import shared_contribution
from moe_routing.reference.formats import Bools, Floats

_ANSWERED = "routes    those that the layer answered"
_DUE = "routes    those of the reference: the layer answered none"


def layer_failure(clause: str, due: Routed, output: Floats, wrong: Bools, *, own: bool) -> Failure:
    """Return the failure at the first of the outputs that are ``wrong [T, H]``.

    ``own`` says that the layer is judged at the routes that it answered.
    """
    t, h = (int(i) for i in np.argwhere(wrong)[0])
    come, held = f"{at('output', t, h)}={show(output[t, h])}", permitted(due.output, t, h)
    return Failure(
        stage=clause,
        token=t,
        summary=f"{come}, but should be {held}",
        details=(
            *call_lines(due.facts),
            _ANSWERED if own else _DUE,
            *slot_lines(due.layer, t, h),
            *_shared(due.facts, t, h),
            *_looks(due, output, t),
        ),
    )


def call_lines(facts: LayerFacts) -> Iterator[str]:
    """Yield the routing call, then what the experts and the shared expert compute."""
    config, inputs = facts.config, facts.inputs
    yield f"call    {call(config.router, inputs.router)}"
    experts = config.experts
    gate = "gated" if experts.gated else "no gate"
    biased = any(name.endswith("_bias") and name.startswith("experts") for name in inputs.arrays())
    biases = ", biases" if biased else ""
    made = f"{experts.activation}, {gate}{biases}, weight on the {experts.weight_on}"
    yield f"experts   F={inputs.width}: {made}"
    if (kind := config.shared.kind) != "none":
        opened = "with a gate" if config.shared.gated else "without a gate"
        yield f"shared    {kind}, {opened}, I={inputs.shared_width}"


def contribution(facts: LayerFacts) -> Floats | None:
    """Return what the shared expert adds, ``[T, H]`` in float64, or None."""
    shared = facts.inputs.shared
    return None if shared is None else shared_contribution(facts.config.shared, shared)


def _shared(facts: LayerFacts, t: int, h: int) -> Iterator[str]:
    if (adds := contribution(facts)) is not None:
        yield f"{'':12}the shared expert adds {show(float(adds[t, h]))}"


def _looks(due: Routed, output: Floats, t: int) -> Iterator[str]:
    """Yield one line that says what the token's output is within rounding of, if anything is."""
    ball = due.output[t]
    for words, other in _readings(due, t):
        apart = np.abs(other - ball.mid) > 2.0 * ball.rad
        with np.errstate(invalid="ignore"):
            near = np.abs(output[t] - other) <= 2.0 * ball.rad + np.spacing(np.abs(other)) * 4
        if (near | ~ball.decided).all() and (apart & ball.decided).any():
            yield f"looks     as if {words}"
            return


def _readings(due: Routed, t: int) -> Iterator[tuple[str, Floats]]:
    """Yield what the token's output would be after each of several mistakes, with its words."""
    right, facts = due.output.mid[t], due.facts
    slots = [k for k in range(due.ids.shape[1]) if due.layer.present[t, k]]
    parts = [np.array([added(due.layer, t, k, h) for h in range(right.size)]) for k in slots]
    routed = np.sum(parts, axis=0) if parts else np.zeros_like(right)
    if (adds := contribution(facts)) is not None:
        yield from _of_shared(facts, right, adds[t], t)
    scale = facts.config.router.scale
    if scale != 1.0:
        yield "the routed scaling factor were applied twice", right + (scale - 1.0) * routed
    if scale not in (0.0, 1.0):
        yield "the routed scaling factor were lost", right - routed + routed / scale
    for k, part in zip(slots, parts, strict=True):
        named = f"slot {k} (expert {due.ids[t, k]})"
        yield f"{named} were lost", right - part
        yield f"{named} were added twice", right + part


def _of_shared(
    facts: LayerFacts, right: Floats, adds: Floats, t: int
) -> Iterator[tuple[str, Floats]]:
    yield "the shared expert were lost", right - adds
    yield "the shared expert were added twice", right + adds
    yield "the shared expert were halved", right - adds / 2.0
    if (scale := facts.config.router.scale) != 1.0:
        yield "the shared expert were scaled like the routed ones", right + (scale - 1.0) * adds
    if facts.config.shared.gated and (inputs := facts.inputs.shared) is not None:
        bare = replace(inputs, gate=None)
        whole = shared_contribution(replace(facts.config.shared, gated=False), bare)[t]
        yield "the shared expert had no gate", right - adds + whole
