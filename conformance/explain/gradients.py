"""Why a gradient is wrong, in words: where, what came back, what is permitted, what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from moe_routing.conformance.explain import story
from moe_routing.conformance.explain.failure import Failure, at
from moe_routing.conformance.explain.numbers import show, span
from moe_routing.conformance.judge.gradients import GradientVerdict, Judged
from moe_routing.reference import gradients
from moe_routing.reference.formats import Floats

_SHOWN = 8
"""The experts of a token that are listed, at the most."""

_BY_TOKEN = ("logits", "hidden")


def gradient_failure(verdict: GradientVerdict, judged: Judged) -> Failure:
    """Return the failure of the first wrong number of one gradient, with its story."""
    place = tuple(int(i) for i in np.argwhere(judged.wrong)[0])
    token = place[0] if judged.name in _BY_TOKEN else None
    return Failure(
        stage=f"gradient of {judged.name}",
        token=token,
        summary=summary_of(judged, place),
        details=tuple(_story(verdict, judged, place)),
    )


def summary_of(judged: Judged, place: tuple[int, ...]) -> str:
    """Return one line: which number it is, what came back, and what is permitted."""
    name = f"the gradient of {at(judged.name, *place)}"
    ends = _ends(judged, place)
    if not judged.given:
        return f"{name} is None, which counts as 0, but should be in {span(ends)}"
    answered = float(judged.answered[place])
    if not np.isfinite(answered):
        return f"{name} is {show(answered)}, but should be finite, in {span(ends)}"
    return f"{name} is {show(answered)}, but should be in {span(ends)}"


def _ends(judged: Judged, place: tuple[int, ...]) -> tuple[float, float]:
    mid, rad = float(judged.permitted.mid[place]), float(judged.permitted.rad[place])
    return mid - rad, mid + rad


def _story(verdict: GradientVerdict, judged: Judged, place: tuple[int, ...]) -> Iterator[str]:
    config, inputs = verdict.bounds.config, verdict.bounds.inputs
    yield f"call    {story.call(config, inputs)}"
    yield f"scalar    sum of w[t, k] * G[t, ids[t, k]], G {of_cotangent(verdict.cotangent)}"
    if found := missing(verdict, judged, place):
        yield f"factor    {found}"
    if judged.name in _BY_TOKEN:
        yield from _token(verdict, place[0], place[1] if judged.name == "logits" else None)


def of_cotangent(cotangent: Floats) -> str:
    """Return the shape of a cotangent, and its ends."""
    shape = str([*cotangent.shape])
    if not cotangent.size:
        return shape
    return f"{shape} between {show(cotangent.min())} and {show(cotangent.max())}"


def _token(verdict: GradientVerdict, token: int, expert: int | None) -> Iterator[str]:
    """Yield a line for each expert that matters: its weight, cotangent and gradient."""
    chosen = verdict.ids[token].tolist()
    others = [e for e in range(verdict.bounds.config.num_experts) if e not in chosen]
    first = [] if expert is None else [expert]
    yield f"experts   {'expert':>6} {'logit':>10} {'weight':>10} {'G':>7}   gradient of the logit"
    own = verdict.given.get("logits")
    for e in dict.fromkeys([*first, *chosen, *others][:_SHOWN]):
        mark = "*" if e == expert else " "
        logit = verdict.bounds.reference.logits[token, e]
        weight = _weight(verdict, token, e)
        came = "" if own is None else f"{show(own[token, e], 7)}, due "
        low, high = _ends(verdict.of("logits"), (token, e))
        due = f"[{show(low, 7)}, {show(high, 7)}]"
        yield (
            f"{'':10}{mark}{e:>5} {show(logit, 5):>10} {weight:>10} "
            f"{show(verdict.cotangent[token, e], 4):>7}   {came}{due}"
        )


def _weight(verdict: GradientVerdict, token: int, expert: int) -> str:
    slots = np.flatnonzero(verdict.ids[token] == expert)
    return show(verdict.answer.weights[token, slots].sum(), 5) if slots.size else "-"


def missing(verdict: GradientVerdict, judged: Judged, place: tuple[int, ...]) -> str:
    """Return which factor or part explains the number that came back, in words, or nothing."""
    answered = float(judged.answered[place])
    if np.isnan(answered):
        return "NaN: an overflow, or 0 times infinity, on the way back"
    if answered == 0.0:
        return _nothing(verdict, judged, place)
    mid, rad = float(judged.permitted.mid[place]), float(judged.permitted.rad[place])
    for words, factor in _factors(verdict):
        if abs(answered - factor * mid) <= abs(factor) * rad:
            return words
    for words, other in _parts(verdict):
        found = getattr(other, judged.name)
        if found is not None and abs(answered - found[place]) <= rad:
            return words
    return ""


def _nothing(verdict: GradientVerdict, judged: Judged, place: tuple[int, ...]) -> str:
    if not judged.given:
        return "None: detached from its graph"
    if judged.name == "logits" and place[1] not in verdict.ids[place[0]]:
        return "0: nothing came back to an expert that was not chosen"
    return "0: nothing came back"


def _factors(verdict: GradientVerdict) -> Iterator[tuple[str, float]]:
    config, tokens = verdict.bounds.config, verdict.bounds.inputs.num_tokens
    yield "the sign: it is the negative of what is due", -1.0
    named = (
        ("scale", config.scale),
        ("logit_multiplier", config.logit_multiplier),
        ("top_k", float(config.top_k)),
        ("the number of tokens", float(tokens)),
    )
    two = "".join(f"; {name} is 2" for name, factor in named if factor == 2.0)
    yield f"half of it: what is due is twice as much{two}", 0.5
    yield f"twice as much as is due{two}", 2.0
    for name, factor in named:
        if factor not in (0.0, 1.0):
            yield f"{name}={show(factor)} is missing", 1.0 / factor
            yield f"{name}={show(factor)} is in it once too often", factor


def _parts(verdict: GradientVerdict) -> Iterator[tuple[str, object]]:
    """Yield what comes back if one part of the way is left out."""
    config, inputs = verdict.bounds.config, verdict.bounds.inputs
    if config.renormalize is not None:
        done = verdict.bounds.reference
        with np.errstate(all="ignore"):
            divisor = (done.gathered / done.renormalized).max(axis=1, keepdims=True)
            constant = (verdict.cotangent / divisor).astype(np.float32)
        plain = replace(config, renormalize=None)
        yield (
            "the norm's own gradient: the weights were divided by a constant",
            gradients(plain, inputs, verdict.ids, np.nan_to_num(constant)),
        )
    if inputs.per_expert_scale is not None:
        bare = replace(inputs, per_expert_scale=None)
        yield (
            "each expert's own scale is missing",
            gradients(config, bare, verdict.ids, verdict.cotangent.astype(np.float32)),
        )
