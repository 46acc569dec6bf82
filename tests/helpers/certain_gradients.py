"""Gradients that are certainly right, held against the radii that nobody then computes.

What is certain has to be right by the whole radius as well, and decided. A campaign of as many
drawn cases as are wanted, differentiated by torch, and changed:

    python tests/helpers/certain_gradients.py 10000 0
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from torch_forms import differentiated, judged

from moe_routing.conformance.calls.gradients import GradientCase
from moe_routing.conformance.generators.choices import Focus, seeded
from moe_routing.conformance.generators.gradients import choose_gradient_case
from moe_routing.conformance.judge import Bounds
from moe_routing.conformance.judge.gradients import GradientVerdict, Judged
from moe_routing.implementations import Capabilities, Claim, GroupRule, Numerics
from moe_routing.reference import Renormalize
from moe_routing.reference.formats import Floats

WHOLE = Capabilities()
_NORMS = (None, Renormalize(), Renormalize(eps=1e-20), Renormalize(eps=0.0625))
_PLAIN: dict[str, Any] = {
    "weights_from": ("scores", "softmax_of_selected", "sigmoid_of_selected"),
    "score": ("softmax", "sigmoid"),
    "renormalize": _NORMS,
    "logit_softcap": (False,),
    "logit_multiplier": (False,),
    "input_norm": (False,),
}


def _axis(**changed: Any) -> Capabilities:
    whole = {"dtypes": changed.pop("dtypes")} if "dtypes" in changed else {}
    return Capabilities(claims=(Claim(**{**_PLAIN, **changed}),), **whole)


_ORDERS = (Renormalize(order=2.0), Renormalize(order=0.5), Renormalize(order=2.0, eps=1e-6))
_FLOORS = (Renormalize(floor=0.25), Renormalize(floor=1e-12), Renormalize(floor=4.0))
PLAIN = _axis()
AXES: dict[str, Capabilities] = {
    "plain": PLAIN,
    "softcap": _axis(logit_softcap=(True,)),
    "multiplier": _axis(logit_multiplier=(True,)),
    "input norm": _axis(input_norm=(True,)),
    "masked scores": _axis(weights_from=("masked_scores",), groups=(GroupRule(),)),
    "16-bit scores": _axis(scores_dtype=("input",), dtypes=("bfloat16", "float16")),
    "16-bit logits": _axis(logits_dtype=("input",), dtypes=("bfloat16", "float16")),
    "order of the norm": _axis(renormalize=_ORDERS),
    "floor of the norm": _axis(renormalize=_FLOORS),
    "eps of a softmax": _axis(score=("softmax",), weights_from=("scores",), renormalize=_NORMS[2:]),
    "sqrtsoftplus": _axis(score=("sqrtsoftplus",), weights_from=("scores",)),
    "bias on the gate": _axis(gate_bias=(True,)),
    "delta of the gate": _axis(gate_delta=(True,)),
    "scale of an expert": _axis(per_expert_scale=(True,)),
    "all of it": WHOLE,
}
"""What gradients are certain of, axis by axis."""

FORMS = ("eager", "logarithm", "reciprocal", "float64")

MODES = ("routed", "routed", "hidden", "hidden", "detached")
"""What an answer has: its logits with their gradient, neither, or the logits alone."""

NAMES = (
    *("logits", "hidden", "gate_weight", "gate_delta", "gate_bias", "hidden_scale"),
    "per_expert_scale",
)


def verdicts(case: GradientCase, stream: random.Random) -> Iterator[GradientVerdict]:
    """Yield verdicts on gradients by torch, on wrong ones, and on such as hardly are permitted."""
    bounds = Bounds(case.config, case.inputs.router, Numerics())
    answer, given = differentiated(bounds, case, stream.choice(FORMS))
    verdict = in_mode(judged(bounds, case, answer, given), stream.choice(MODES))
    given, answer = verdict.given, verdict.answer
    yield verdict
    name = stream.choice(NAMES)
    for changed in (given[name] * 1.001, np.zeros_like(given[name])) if name in given else ():
        yield replace(verdict, given={**given, name: changed})
    ids = np.roll(answer.expert_ids, 1, axis=0)
    yield replace(verdict, answer=replace(answer, expert_ids=ids))
    for name in NAMES:
        if name in given:
            for moved in _at_the_border(whole(verdict, name), stream):
                yield replace(verdict, given={**given, name: moved})


def in_mode(verdict: GradientVerdict, mode: str) -> GradientVerdict:
    """Return the verdict on an answer that hides its logits, or the gradient of those, or both."""
    answer, given = verdict.answer, verdict.given
    if mode != "routed":
        given = {name: each for name, each in given.items() if name != "logits"}
    if mode == "hidden":
        answer = replace(answer, logits=None)
    return replace(verdict, answer=answer, given=given, routed=mode != "hidden")


def narrow(verdict: GradientVerdict) -> GradientVerdict:
    """Return the verdict on gradients that are float32, rounded to it if they were not."""
    given = {name: each.astype(np.float32) for name, each in verdict.given.items()}
    return replace(verdict, given=given)


def whole(verdict: GradientVerdict, name: str) -> Judged:
    """Judge one gradient by its radius, whatever is certain."""
    return replace(replace(verdict).of(name), certain=lambda: False)


def _at_the_border(found: Judged, stream: random.Random) -> Iterator[Floats]:
    """Yield what is permitted, here and there by a little more or less than the whole radius."""
    ball, rng = found.permitted, np.random.default_rng(stream.getrandbits(32))
    rad = np.where(ball.decided, ball.rad, 0.0)
    yield ball.mid + rad * rng.uniform(-1.0, 1.0, ball.mid.shape) * stream.choice((0.02, 0.2, 0.9))
    for _ in range(2 if ball.mid.size else 0):
        answered = found.answered.copy()
        place = tuple(int(rng.integers(0, n)) for n in answered.shape)
        share = stream.choice((-1.0, 1.0)) * stream.choice((0.99, 1.0 + 2.0**-20, 1.05))
        answered[place] = np.nextafter(ball.mid[place] + share * rad[place], share * np.inf)
        yield answered


def axis_of(number: int) -> str:
    """Return the axis that a case is of."""
    return [*AXES][number % len(AXES)]


def drawn(number: int, seed: int) -> tuple[GradientCase, random.Random]:
    """Return a case of an axis, one after the other, and a stream for what answers it."""
    stream = random.Random(f"{seed}/{number}")
    some = AXES[axis_of(number)]
    return choose_gradient_case(seeded(stream.getrandbits(64)), some, Focus()), stream


def differences(number: int, seed: int) -> tuple[list[str], Counter[str]]:
    """Return what is certain of one case and not right, and what was looked at."""
    case, stream = drawn(number, seed)
    found: list[str] = []
    counts = Counter(cases=1)
    if case.inputs.cotangent.size > 2**14:
        return found, Counter(large=1)
    with np.errstate(all="ignore"):
        for verdict in verdicts(case, stream):
            if stream.random() < 0.5:
                verdict = narrow(verdict)
            for name in NAMES:
                if name not in verdict.given:
                    continue
                quick, slow = verdict.of(name), whole(verdict, name)
                wrong = bool(slow.wrong.any())
                counts.update([name, f"{name} {'wrong' if wrong else 'right'}"])
                if quick.surely_right:
                    counts.update([f"{name} certain", f"{axis_of(number)}: {name} certain"])
                    if wrong or not slow.decided:
                        found.append(f"case {number} of seed {seed}: {name} of {case.config}")
    return found, counts


def main(count: int, seed: int, axis: str = "") -> None:
    """Print what is certain and not right, and what was looked at; of one axis, or of all."""
    counts: Counter[str] = Counter()
    numbers = (n for n in range(count) if axis in axis_of(n))
    for number in numbers:
        found, seen = differences(number, seed)
        counts.update(seen)
        for line in found:
            print(line, flush=True)
        counts["different"] += len(found)
    print(dict(counts.most_common()))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]), *sys.argv[3:4])
