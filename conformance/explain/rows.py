"""The rows shown for one token: those that matter most, and how many lie between them.

The story, the page and the picture all show these.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

from moe_routing.conformance.explain.cut import at_odds, groups_at_odds, misplaced
from moe_routing.conformance.explain.token_view import (
    SHOWN,
    ExpertView,
    GroupView,
    SlotView,
    TokenView,
)

Item = TypeVar("Item")


@dataclass(frozen=True)
class Gap:
    """Rows that are left out in one place; the backend chose ``chosen`` of them."""

    count: int
    chosen: int = 0

    @property
    def words(self) -> str:
        """Count them in words."""
        chosen = "all" if self.chosen == self.count > 1 else self.chosen
        return f"... {self.count} more" + (f", {chosen} chosen" if self.chosen else "")


def expert_rows(view: TokenView, *, others: bool = True) -> list[ExpertView | Gap]:
    """Return the experts to show, best first: at the cut, wrong, chosen, and some others.

    Without ``others`` only those that the answer, the reference or the words of the failure
    name.
    """
    named = {each.id for each in at_odds(view) or ()}
    named |= {each.expert for each in [slot for slot in view.slots if not slot.right][:1]}
    named |= {each.id for each in [each for each in view.experts if not each.logit_right][:1]}
    bad = {slot.expert for slot in view.slots if not slot.right}
    cut = len(set(view.due))

    def matters(each: ExpertView) -> bool:
        return each.answered or each.due or not each.logit_right

    def order(each: ExpertView) -> tuple[Any, ...]:
        wrong = each.answered != each.due or not each.logit_right
        distance = _distance(each.rank, cut)
        less = each.id not in bad, not matters(each), distance, each.rank
        return each.id not in named, distance > 0, not wrong, *less

    candidates = [each for each in view.experts if others or matters(each) or each.id in named]
    return _with_gaps(
        {each.rank for each in sorted(candidates, key=order)[:SHOWN]},
        {each.rank: each for each in view.experts},
        len(view.experts) + view.hidden,
        {each.rank for each in view.experts if each.answered},
    )


def group_rows(view: TokenView) -> list[GroupView | Gap]:
    """Return the groups to show, best first: at the cut, of wrong experts, and some others."""
    best = sorted(view.groups, key=lambda each: (not each.kept, -each.score, each.id))
    named = {each.id for each in groups_at_odds(view)}
    wrong = {each.group for each in view.experts if each.answered != each.due}
    cut = sum(each.kept for each in best)

    def order(rank: int) -> tuple[Any, ...]:
        each, distance = best[rank], _distance(rank, cut)
        return each.id not in named, distance > 0, each.id not in wrong, distance, rank

    shown = sorted(range(len(best)), key=order)[:SHOWN]
    return _with_gaps({*shown}, dict(enumerate(best)), len(best))


def slot_rows(view: TokenView) -> list[SlotView | Gap]:
    """Return the slots to show, in their order: wrong weights and wrong experts first."""
    named = {each.id for each in at_odds(view) or ()}
    unfit = {*misplaced(view)}

    def order(k: int) -> tuple[Any, ...]:
        slot = view.slots[k]
        return k not in unfit and slot.right, slot.expert not in named, slot.expert in view.due, k

    shown = sorted(range(len(view.slots)), key=order)[:SHOWN]
    return _with_gaps({*shown}, dict(enumerate(view.slots)), len(view.slots))


def _distance(rank: int, cut: int) -> int:
    """Return how many places lie between a rank and the cut."""
    return rank - cut if rank >= cut else cut - 1 - rank


def _with_gaps(
    shown: Set[int], items: Mapping[int, Item], size: int, chosen: Set[int] = frozenset()
) -> list[Item | Gap]:
    """Return the rows shown with gaps for the others; a gap of one is shown instead."""
    rows: list[Item | Gap] = []
    for here, places in groupby(range(size), key=lambda place: place in shown):
        run = list(places)
        if here or (len(run) == 1 and run[0] in items):
            rows += [items[place] for place in run]
        else:
            rows.append(Gap(len(run), len(chosen & {*run})))
    return rows
