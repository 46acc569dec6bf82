"""The story of one token in words: stage by stage, what was answered and what was permitted.

Logits, scores with their selection bias, groups, the cut and the weights come in the order
of the pipeline, each with what was permitted and, where that was missed, by how much.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from moe_routing.conformance.explain.cut import cut_words
from moe_routing.conformance.explain.numbers import listed, missed, show, slot_note, span
from moe_routing.conformance.explain.rows import Gap, expert_rows, group_rows, slot_rows
from moe_routing.conformance.explain.token_view import ExpertView, Span, TokenView, token_view
from moe_routing.conformance.judge import Verdict
from moe_routing.reference import RouterConfig, RouterInputs
from moe_routing.reference.formats import Floats

_OF_THE_CALL = ("hidden", "gate_weight", "logits", "token_ids", "hidden_scale")


def story(verdict: Verdict, token: int) -> tuple[str, ...]:
    """Return what happened to one token, stage by stage, for the experts that matter."""
    view = token_view(verdict, token)
    first = (*_first_lines(verdict, token), *_input(view))
    if not view.judged:
        return (*first, "this token's scores are undefined: only its ids are judged")
    return (*first, *_logits(view), *_groups(view), *_selection(view), *_weights(view))


def _first_lines(verdict: Verdict, token: int) -> tuple[str, ...]:
    reference, answer = verdict.bounds.reference, verdict.answer
    return (
        f"token {token} of {call(verdict.bounds.config, verdict.bounds.inputs)}",
        f"answered  experts {listed(answer.expert_ids[token].tolist())} "
        f"with weights {_numbers(answer.weights[token])}",
        f"reference experts {listed(reference.expert_ids[token].tolist())} "
        f"with weights {_numbers(reference.weights[token])}",
    )


def call(config: RouterConfig, inputs: RouterInputs) -> str:
    """Return the sizes, the dtype, the configuration and the optional inputs of a call."""
    arrays = [name for name in inputs.arrays() if name not in _OF_THE_CALL]
    if inputs.selection_bias is not None:
        arrays[arrays.index("selection_bias")] += f" on the {inputs.selection_bias_on}"
    extra = f", with {', '.join(arrays)}" if arrays else ""
    return (
        f"T={inputs.num_tokens} (H={inputs.hidden_size} E={config.num_experts} "
        f"K={config.top_k}, {stored(inputs)}): {describe(config)}{extra}"
    )


def stored(inputs: RouterInputs) -> str:
    """Return the dtype of the inputs, and of the gate or the given logits where it is another."""
    if inputs.gate_dtype == "input":
        return inputs.dtype
    what = "gate" if inputs.logits is None else "logits"
    return f"{inputs.dtype}, {what} in {inputs.gate_dtype}"


def call_line(config: RouterConfig, inputs: RouterInputs) -> str:
    """Return the line on a call, without its answer."""
    return f"call    {call(config, inputs)}"


def _numbers(row: Floats) -> str:
    return listed([float(show(value)) for value in row])


def _input(view: TokenView) -> Iterator[str]:
    if view.input is not None:
        yield f"hidden    {listed([show(x) for x in view.input.hidden], view.input.size)}"
        yield f"normed    {listed([show(x) for x in view.input.normed], view.input.size)}"


def _logits(view: TokenView) -> Iterator[str]:
    yield f"logits    {'expert':>8} {'logit':>15}   permitted logit"
    for each in expert_rows(view, others=False):
        if isinstance(each, Gap):
            yield _left_out(each)
            continue
        logit = each.logit if each.own_logit is None else each.own_logit
        yield _line(each, logit, "", each.permitted_logit, missed(logit, each.permitted_logit))


def _groups(view: TokenView) -> Iterator[str]:
    if view.groups:
        rows = group_rows(view)
        words = (g.words if isinstance(g, Gap) else f"{g.id}: {show(g.score)}" for g in rows)
        kept = listed([g.id for g in view.groups if g.kept])
        yield f"groups    scores {', '.join(words)}; kept {kept}"


def _selection(view: TokenView) -> Iterator[str]:
    yield f"selection {'expert':>8} {'score':>15} {'bias':>13}   competes in"
    for each in expert_rows(view, others=False):
        if isinstance(each, Gap):
            yield _left_out(each)
            continue
        bias = "" if each.bias is None else show(each.bias)
        excluded = "" if each.kept else "  group excluded"
        yield _line(each, each.score, f" {bias:>13}", each.competing, excluded)
    first, *rest = cut_words(view)
    yield f"cut       {first}"
    yield from (f"{'':10}{line}" for line in rest)


def _weights(view: TokenView) -> Iterator[str]:
    yield f"weights   {'expert':>8} {'weight':>15}   permitted weight"
    for slot in slot_rows(view):
        if isinstance(slot, Gap):
            yield _left_out(slot)
        elif slot.permitted is None:
            yield f"{'':10}{slot.expert:>8} {show(slot.weight):>15}   no such expert"
        else:
            permitted = span(slot.permitted)
            note = slot_note(slot)
            yield f"{'':10}{slot.expert:>8} {show(slot.weight):>15}   {permitted}{note}"


def _line(each: ExpertView, value: float, more: str, permitted: Span, note: str) -> str:
    mark = "*" if each.answered else " "
    return f"{'':10}{mark}{each.id:>7} {show(value):>15}{more}   {span(permitted)}{note}"


def _left_out(gap: Gap) -> str:
    return f"{'':15}{gap.words}"


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
