"""The story of one token in words: stage by stage, what was answered and what was permitted.

Logits, scores with their selection bias, groups, the cut and the weights come in the order
of the pipeline, each with what was permitted and, where that was missed, by how much.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import numpy as np

from moe_routing.conformance.explain.token_view import ExpertView, Span, TokenView, token_view
from moe_routing.conformance.judge import Verdict
from moe_routing.reference import RouterConfig, RouterInputs

_OF_THE_CALL = ("hidden", "gate_weight", "logits", "token_ids", "hidden_scale")

SHOWN = 12
"""The experts, groups and slots that a story tells of, at most."""


def story(verdict: Verdict, token: int) -> tuple[str, ...]:
    """Tell what happened to one token, stage by stage, for the experts that matter."""
    chosen = [*verdict.answer.expert_ids[token], *verdict.bounds.reference.expert_ids[token]]
    view = token_view(verdict, token, shown=min(SHOWN, len(set(chosen))))
    first = _first_lines(verdict, token)
    if not view.judged:
        return (*first, "this token's scores are undefined: only its ids are judged")
    return (*first, *_logits(view), *_groups(view), *_selection(view), *_weights(view))


def _first_lines(verdict: Verdict, token: int) -> tuple[str, ...]:
    reference, answer = verdict.bounds.reference, verdict.answer
    return (
        f"token {token} of {call(verdict.bounds.config, verdict.bounds.inputs)}",
        f"answered  experts {answer.expert_ids[token].tolist()} "
        f"with weights {_numbers(answer.weights[token])}",
        f"reference experts {reference.expert_ids[token].tolist()} "
        f"with weights {_numbers(reference.weights[token])}",
    )


def call(config: RouterConfig, inputs: RouterInputs) -> str:
    """Return the sizes, the dtype and the configuration of a call."""
    return (
        f"T={inputs.num_tokens} (H={inputs.hidden_size} E={config.num_experts} "
        f"K={config.top_k}, {inputs.dtype}): {describe(config)}"
    )


def asked(config: RouterConfig, inputs: RouterInputs) -> str:
    """Return the line that tells a call without its answer: as ``call``, with what it is given."""
    arrays = [name for name in inputs.arrays() if name not in _OF_THE_CALL]
    if inputs.selection_bias is not None:
        arrays[arrays.index("selection_bias")] += f" on the {inputs.selection_bias_on}"
    beside = f", with {', '.join(arrays)}" if arrays else ""
    return f"call    {call(config, inputs)}{beside}"


def _numbers(row: np.ndarray) -> list[float]:
    return [float(show(value)) for value in row]


def _logits(view: TokenView) -> Iterator[str]:
    yield f"logits    {'expert':>8} {'logit':>15}   permitted logit"
    for each in view.experts[:SHOWN]:
        logit = each.logit if each.own_logit is None else each.own_logit
        yield _line(each, logit, "", each.permitted_logit, missed(logit, each.permitted_logit))


def _groups(view: TokenView) -> Iterator[str]:
    if view.groups:
        best = sorted(view.groups, key=lambda g: (not g.kept, -g.score, g.id))[:SHOWN]
        scores = ", ".join(f"{g.id}: {show(g.score)}" for g in best)
        kept = [g.id for g in view.groups if g.kept]
        yield f"groups    scores {scores}; kept {kept}"


def _selection(view: TokenView) -> Iterator[str]:
    yield f"selection {'expert':>8} {'score':>15} {'bias':>13}   competes in"
    for each in view.experts[:SHOWN]:
        bias = "" if each.bias is None else show(each.bias)
        excluded = "" if each.kept else "  group excluded"
        yield _line(each, each.score, f" {bias:>13}", each.competing, excluded)
    first, *rest = _cut(view)
    yield f"cut       {first}"
    yield from (f"{'':10}{line}" for line in rest)


def _cut(view: TokenView) -> list[str]:
    """Word what the weakest chosen expert had to reach, and by how much it missed that."""
    if view.cut is None:
        return ["the table's row decides; no score does"]
    chosen = [each for each in view.experts if each.answered]
    left = [each for each in view.experts if each.due and not each.answered]
    if any(not each.kept for each in chosen):
        return _excluded(view, [each for each in chosen if not each.kept])
    if not chosen or not left:
        return [f"{show(view.cut)}; the experts chosen are the reference's"]
    weakest = min(chosen, key=lambda each: each.competing[1])
    best = max(left, key=lambda each: each.competing[0])
    reached, needed = weakest.competing[1], best.competing[0]
    verdict = "a near tie" if reached >= needed else f"missed by {show(needed - reached, 3)}"
    return [
        f"expert {best.id}, left out, competes with {show(needed)} or more;",
        f"expert {weakest.id}, chosen, with {show(reached)} or less: {verdict}",
    ]


def _excluded(view: TokenView, chosen: list[ExpertView]) -> list[str]:
    """Word how far the groups of the chosen experts are from being kept."""
    own = [view.groups[each.group] for each in chosen if each.group is not None]
    worst = min(own, key=lambda group: group.score)
    least = min((group for group in view.groups if group.kept), key=lambda group: group.score)
    return [
        f"experts {[each.id for each in chosen]} were chosen out of groups that are not kept:",
        f"group {worst.id} scores {show(worst.score)}, group {least.id}, kept, "
        f"{show(least.score)}: missed by {show(least.score - worst.score, 3)}",
    ]


def _weights(view: TokenView) -> Iterator[str]:
    yield f"weights   {'expert':>8} {'weight':>15}   permitted weight"
    for slot in view.slots[:SHOWN]:
        if slot.permitted is None:
            yield f"{'':10}{slot.expert:>8} {show(slot.weight):>15}   no such expert"
            continue
        beyond = "" if slot.right else missed(slot.weight, slot.permitted)
        yield (f"{'':10}{slot.expert:>8} {show(slot.weight):>15}   {span(slot.permitted)}{beyond}")


def _line(each: ExpertView, value: float, more: str, permitted: Span, note: str) -> str:
    mark = "*" if each.answered else " "
    return f"{'':10}{mark}{each.id:>7} {show(value):>15}{more}   {span(permitted)}{note}"


def missed(value: float, permitted: Span) -> str:
    """Say by how much a value lies outside what is permitted; nothing where it lies inside."""
    low, high = permitted
    if low <= value <= high or np.isnan([low, high]).any():
        return ""
    beyond = low - value if value < low else value - high
    if not np.isfinite(beyond):
        return "  missed"
    allowance = (high - low) / 2.0
    share = f"{beyond / allowance:.3g} times the allowance" if allowance else "nothing is allowed"
    return f"  missed by {show(beyond, 3)}, {share}"


def show(value: float, digits: int = 9) -> str:
    """Return a number with every digit that float32 can hold."""
    return format(float(value), f".{digits}g")


def span(permitted: Span) -> str:
    """Return ``[0.1, 0.2]``, or the one number that is permitted."""
    low, high = permitted
    return show(low) if low == high else f"[{show(low)}, {show(high)}]"


def describe(config: RouterConfig) -> str:
    """Return the fields of a configuration that differ from their defaults."""
    defaults = {each.name: each.default for each in fields(config)}
    return (
        ", ".join(
            f"{name}={value!r}"
            for name, value in vars(config).items()
            if value != defaults[name] and name not in ("num_experts", "top_k")
        )
        or "the plain softmax router"
    )
