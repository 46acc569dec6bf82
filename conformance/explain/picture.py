"""The picture of a case: its routing as a person would draw it, token by token.

Which groups won, which experts, where the cuts fell and who sat on them. Drawn from the
reference's answer, in lines of 100 characters or fewer; of many experts, those near the cut.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.explain.numbers import show
from moe_routing.conformance.explain.rows import Gap, expert_rows, group_rows
from moe_routing.conformance.explain.story import describe, stored
from moe_routing.conformance.explain.token_view import (
    SHOWN,
    ExpertView,
    GroupView,
    TokenView,
    token_view,
)
from moe_routing.conformance.judge import Answer, Bounds, Verdict, judge
from moe_routing.implementations import Numerics
from moe_routing.reference import Groups, SharedSlots, route

_BAR = 12
_RULE = 76


def picture(case: Case, tokens: Sequence[int]) -> Iterator[str]:
    """Draw ``tokens`` of a case, line by line. Errors: ``ValueError`` where it has no routing."""
    right = route(replace(case.config), case.inputs)  # replacing checks the configuration
    routed = right.weights[:, : case.config.top_k], right.expert_ids[:, : case.config.top_k]
    answer = Answer(weights=routed[0], expert_ids=routed[1], logits=right.logits)
    verdict = judge(Bounds(case.config, case.inputs, Numerics()), answer)
    yield f"{case.size} {stored(case.inputs)}, drawn as {case.recipe}"
    yield from _wrapped(describe(case.config))
    for token in tokens:
        yield ""
        yield f"token {token}"
        yield from _token(case, verdict, token)


def _wrapped(words: str) -> Iterator[str]:
    line = " "
    for part in words.split(", "):
        if len(line) + len(part) > 96:
            yield f"{line},"
            line = " "
        line += f" {part}" if line == " " else f", {part}"
    yield line


def _token(case: Case, verdict: Verdict, token: int) -> Iterator[str]:
    view = token_view(verdict, token)
    if not view.judged:
        yield "  its scores are undefined: any distinct experts are right"
    else:
        if case.config.groups is not None and view.groups:
            yield from _groups(view, case.config.groups, case.config.experts_per_group)
        yield from _experts(view)
    if case.config.shared_slots is not None:
        yield from _shared(case.config.shared_slots, case.config.num_experts)


def _groups(view: TokenView, groups: Groups, size: int) -> Iterator[str]:
    drawn, tied = group_rows(view), _groups_on_cut(view.groups)
    bars = _bars([each.score for each in drawn if isinstance(each, GroupView)])
    yield f"  {'group':>6}  {'experts':>12}  {'score':>12}"
    above = True
    for each in drawn:
        if isinstance(each, Gap):
            yield _left_out(each)
            continue
        if above and not each.kept:
            above = False
            yield _rule(f"the cut: {groups.kept} of {groups.count} groups are kept")
        experts = f"{each.id * size}..{each.id * size + size - 1}"
        note = "  on the cut" if each.id in tied else ""
        line = f"  {each.id:>6}  {experts:>12}  {show(each.score, 6):>12}  {next(bars):<{_BAR}}"
        yield f"{line}{note}".rstrip()
    yield ""


def _groups_on_cut(views: Sequence[GroupView]) -> set[int]:
    """Return the groups that score what the worst kept one and the best of the others do."""
    kept = [each.score for each in views if each.kept]
    lost = [each.score for each in views if not each.kept]
    if not kept or not lost or min(kept) != max(lost):
        return set()
    return {each.id for each in views if each.score == min(kept)}


def _experts(view: TokenView) -> Iterator[str]:
    yield (
        f"  {'expert':>6}  {'logit':>12} {'score':>12} {'bias':>10} {'competes':>12} {'weight':>11}"
    )
    drawn, ties = expert_rows(view), _on_cut(view)
    weights = {slot.expert: show(slot.weight, 6) for slot in view.slots}
    bars = _bars([_value(each) for each in drawn if isinstance(each, ExpertView)])
    above = True
    for each in drawn:
        if isinstance(each, Gap):
            yield _left_out(each)
            continue
        if above and not each.due:
            above = False
            name = "the cut" if view.cut is not None else "the table's row"
            yield _rule(f"{name}: {len(view.slots)} of {len(view.experts) + view.hidden} experts")
        yield _expert(each, weights.get(each.id, ""), next(bars), each.id in ties)


def _shared(slots: SharedSlots, first: int) -> Iterator[str]:
    """Draw the shared experts, which every token has behind those that it is routed to."""
    yield _rule("shared experts, in slots of their own: no cut, no norm, no scale")
    drawn = min(slots.count, SHOWN)
    for expert in range(first, first + drawn):
        yield f" *{expert:>6}  {show(slots.weight, 6):>61}"
    if slots.count > drawn:
        yield _left_out(Gap(count=slots.count - drawn))


def _left_out(gap: Gap) -> str:
    return f"{'':5}... {gap.count} more"


def _expert(each: ExpertView, weight: str, bar: str, tied: bool) -> str:
    bias = "" if each.bias is None else show(each.bias, 6)
    note = "  on the cut" if tied else "" if each.kept else "  group is out"
    mark = "*" if each.due else " "
    return (
        f" {mark}{each.id:>6}  {show(each.logit, 6):>12} {show(each.score, 6):>12} {bias:>10} "
        f"{show(_value(each), 6):>12} {weight:>11}  {bar:<{_BAR}}{note}"
    ).rstrip()


def _value(each: ExpertView) -> float:
    """Return about what an expert competes with: the middle of what is permitted."""
    low, high = each.competing
    return low if low == high else (low + high) / 2.0


def _on_cut(view: TokenView) -> set[int]:
    """Return the experts that rounding may put on either side of the cut."""
    won = [each for each in view.experts if each.due]
    rivals = [each for each in view.experts if each.kept and not each.due]
    if view.cut is None or view.share is not None or not won or not rivals:
        return set()
    needed = max(each.competing[0] for each in rivals)
    reached = min(each.competing[1] for each in won)
    best = max(each.competing[1] for each in rivals)
    weakest = min(each.competing[0] for each in won)
    if best < weakest:
        return set()
    over = {each.id for each in rivals if each.competing[1] >= weakest}
    under = {each.id for each in won if each.competing[0] <= best}
    return over | under if needed <= reached else set()


def _bars(values: Sequence[float]) -> Iterator[str]:
    """Yield a bar for each value, from the least of them to the greatest."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    span = high - low
    for value in values:
        share = (value - low) / span if span and math.isfinite(value) else 1.0
        yield "#" * (1 + round((_BAR - 1) * share)) if math.isfinite(value) else ""


def _rule(words: str) -> str:
    return f"  {f'--- {words} ':-<{_RULE}}"
