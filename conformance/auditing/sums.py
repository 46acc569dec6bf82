"""The sum of a block: what its experts returned, scaled, and its shared expert on top."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.explain.experts import permitted
from moe_routing.conformance.explain.failure import Failure, at
from moe_routing.conformance.explain.layer import layer_failure
from moe_routing.conformance.explain.numbers import show
from moe_routing.conformance.judge import Bounds
from moe_routing.conformance.judge.ball_sums import total
from moe_routing.conformance.judge.balls import Ball, known, mul
from moe_routing.conformance.judge.experts import Layer, slot_balls, weight_ball
from moe_routing.conformance.judge.intervals import underflow
from moe_routing.conformance.judge.layer import LayerFacts
from moe_routing.conformance.judge.shared_experts import contribution_bounds
from moe_routing.implementations.models.seen import SeenLayer, SeenWhole
from moe_routing.reference.formats import INPUT_FORMATS, Bools, Floats

Held = tuple[int, Failure | None]
"""How many tokens were judged, and the failure if there is one."""


def experts_ball(layer: Layer, copied: Floats | None) -> Ball:
    """Return the permitted outputs of experts, some of which may return what they are given."""
    if copied is None:
        return layer.output
    inputs, form = layer.inputs, layer.form
    weights = weight_ball(inputs.weights.astype(np.float64), form)
    slots = slot_balls(layer.config, inputs, layer.products, weights=weights)
    x = Ball.exact(inputs.hidden[:, None, :].astype(np.float64))
    more = mul(x, weight_ball(copied[:, :, None], form), form)
    mids, rads = np.concatenate([slots.mid, more.mid], 1), np.concatenate([slots.rad, more.rad], 1)
    return total(Ball(mids, rads), form, axis=1, stores=inputs.top_k)


def layer_verdict(seen: SeenLayer, routed: Floats, output: Floats) -> Held:
    """Hold a block's output to the sum of what its experts returned and the shared expert."""
    form = INPUT_FORMATS[seen.dtype]
    shared = _shared(seen)
    first = Ball.exact(routed)
    if seen.factor != 1.0:
        first = mul(first, Ball.exact(np.full((1, 1), seen.factor)), form)
    due = first if shared is None else _added(first, shared, seen.dtype)
    if seen.divisor != 1.0:
        due = known(due.mid / seen.divisor, due.rad / seen.divisor + underflow(form))
    wrong = ~due.contains(output)
    tokens = int(due.decided.any(axis=1).sum())
    return tokens, _failure(seen, due, routed, shared, output, wrong) if wrong.any() else None


def _shared(seen: SeenLayer) -> Ball | None:
    if seen.inputs is None:
        return None
    bounds = contribution_bounds(seen.shared, seen.inputs)
    return known((bounds.lo + bounds.hi) / 2.0, (bounds.hi - bounds.lo) / 2.0)


def _added(first: Ball, second: Ball, dtype: str) -> Ball:
    mid = np.stack([first.mid, second.mid], axis=1)
    return total(
        Ball(mid, np.stack([first.rad, second.rad], axis=1)), INPUT_FORMATS[dtype], axis=1, stores=2
    )


def _failure(
    seen: SeenLayer, due: Ball, routed: Floats, shared: Ball | None, output: Floats, wrong: Bools
) -> Failure:
    t, h = (int(i) for i in np.argwhere(wrong)[0])
    come, held = show(float(output[t, h])), permitted(due, t, h)
    parts = [f"experts   {show(float(routed[t, h]))} is what its experts returned"]
    if seen.factor != 1.0:
        parts.append(f"factor    {show(seen.factor)}, by which the block multiplies that")
    if shared is not None:
        gate = " through its gate" if seen.shared.gated else ""
        parts.append(
            f"shared    {show(float(shared.mid[t, h]))} is what the shared expert adds{gate}"
        )
        parts += _looks(due, shared, output, t)
    return Failure(
        stage="layer.composes",
        token=t,
        summary=f"{at('output', t, h)}={come}, but should be {held}",
        details=tuple(parts),
    )


def _looks(due: Ball, shared: Ball, output: Floats, t: int) -> list[str]:
    """Return what the token's output is within rounding of, if anything."""
    right, adds, slack = due.mid[t], shared.mid[t], 2.0 * due.rad[t] + shared.rad[t]
    for words, other in (
        ("the shared expert were lost", right - adds),
        ("the shared expert were added twice", right + adds),
        ("the experts were lost", adds),
    ):
        if (np.abs(output[t] - other) <= slack).all():
            return [f"looks     as if {words}"]
    return []


def whole_verdict(seen: SeenWhole, output: Floats) -> Held:
    """Hold a block's output to the whole layer, at the routes that rounding permits."""
    products = "tf32" if seen.numerics.multiply == "tf32" else "float32"
    bounds = Bounds(seen.config.router, seen.inputs.router, seen.numerics)
    facts = LayerFacts(seen.config, seen.inputs, bounds, products)
    due = facts.routed
    wrong = ~due.output.contains(output)
    tokens = int(due.decided.sum())
    if not wrong.any():
        return tokens, None
    return tokens, layer_failure("layer.composes", due, output, wrong, own=False)
