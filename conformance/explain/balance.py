"""Why a balance is wrong, in words: the call, the place, what is due, and likely causes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from moe_routing.conformance.explain.failure import Failure, at
from moe_routing.conformance.explain.numbers import listed, show
from moe_routing.conformance.judge.balance import Owed
from moe_routing.conformance.judge.balls import Ball
from moe_routing.reference.balance import expert_counts
from moe_routing.reference.formats import Floats, Ids


def exact_failure(stage: str, owed: Owed, name: str, found: Floats, due: Ids) -> Failure | None:
    """Return the failure of numbers that are exact, or None where they are right."""
    wrong = found != due
    if not wrong.any():
        return None
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    summary = f"{at(name, *place)} is {show(found[place])}, but should be {due[place]}"
    return Failure(stage=stage, summary=summary, details=tuple(_story(owed, place[0])))


def balance_failure(stage: str, owed: Owed, name: str, found: Floats) -> Failure | None:
    """Return the failure of a part that lies outside its ball, or None."""
    ball: Ball = getattr(owed, name)
    mid = np.broadcast_to(ball.mid, found.shape) if found.ndim else ball.mid.reshape(())
    rad = np.broadcast_to(ball.rad, found.shape) if found.ndim else ball.rad.reshape(())
    wrong = ~Ball(mid, rad).contains(found)
    if not wrong.any():
        return None
    place = tuple(int(i) for i in np.argwhere(wrong)[0]) if found.ndim else ()
    where = at(name, *place) if place else name
    due = show(mid[place]) + (f", within {show(rad[place], 3)}" if rad[place] else "")
    summary = f"{where} is {show(found[place])}, but should be {due}"
    hints = _hints(owed, float(found[place]), float(mid[place]))
    details = (*_story(owed, place[0] if place else 0), *hints)
    token = place[1] if len(place) == 3 else None
    return Failure(stage=stage, token=token, summary=summary, details=details)


def call_line(owed: Owed) -> str:
    """Return the sizes of a call, and its rules."""
    inputs, config = owed.inputs, owed.config
    return (
        f"L={inputs.num_layers} T={inputs.num_tokens} ({inputs.num_valid} valid, "
        f"E={inputs.num_experts} K={inputs.top_k}): {config.score}, {config.at_balance} at best, "
        f"{config.counted} slots, {config.over_layers} over layers, {config.update}, {config.mode}"
    )


def _story(owed: Owed, layer: int) -> Iterator[str]:
    yield call_line(owed)
    counts = expert_counts(owed.inputs)[layer].tolist()
    yield f"layer {layer:<4}due counts {listed(counts)}"


def _hints(owed: Owed, found: float, due: float) -> Iterator[str]:
    """Yield what a ratio to the right number suggests."""
    inputs = owed.inputs
    if not due or not np.isfinite(found):
        return
    ratio = found / due
    factors = {
        "K": inputs.top_k,
        "E": inputs.num_experts,
        "L": inputs.num_layers,
        "T": inputs.num_tokens,
        "two": 2,
        "minus one": -1,
    }
    for name, factor in factors.items():
        for word, value in ((name, factor), (f"one over {name}", 1 / factor)):
            if factor != 1 and abs(ratio - value) < abs(value) / 2**10:
                yield f"ratio     answered over due is {show(ratio, 4)}: {word}"
                return
