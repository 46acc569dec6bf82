"""The rows that are shown of one token: those that matter most, and how many lie between them.

Every writer draws these: the story, the page and the picture.
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
    told = {each.id for each in at_odds(view) or ()}
    told |= {each.expert for each in [slot for slot in view.slots if not slot.right][:1]}
    told |= {each.id for each in [each for each in view.experts if not each.logit_right][:1]}
    bad = {slot.expert for slot in view.slots if not slot.right}
    cut = len(set(view.due))

    def named(each: ExpertView) -> bool:
        return each.answered or each.due or not each.logit_right

    def order(each: ExpertView) -> tuple[Any, ...]:
        wrong, beside = each.answered != each.due or not each.logit_right, _beside(each.rank, cut)
        less = each.id not in bad, not named(each), beside, each.rank
        return each.id not in told, beside > 0, not wrong, *less

    asked = [each for each in view.experts if others or named(each) or each.id in told]
    return _with_gaps(
        {each.rank for each in sorted(asked, key=order)[:SHOWN]},
        {each.rank: each for each in view.experts},
        len(view.experts) + view.hidden,
        {each.rank for each in view.experts if each.answered},
    )


def group_rows(view: TokenView) -> list[GroupView | Gap]:
    """Return the groups to show, best first: at the cut, of wrong experts, and some others."""
    best = sorted(view.groups, key=lambda each: (not each.kept, -each.score, each.id))
    told = {each.id for each in groups_at_odds(view)}
    wrong = {each.group for each in view.experts if each.answered != each.due}
    cut = sum(each.kept for each in best)

    def order(rank: int) -> tuple[Any, ...]:
        each, beside = best[rank], _beside(rank, cut)
        return each.id not in told, beside > 0, each.id not in wrong, beside, rank

    shown = sorted(range(len(best)), key=order)[:SHOWN]
    return _with_gaps({*shown}, dict(enumerate(best)), len(best))


def slot_rows(view: TokenView) -> list[SlotView | Gap]:
    """Return the slots to show, in their order: wrong weights and wrong experts first."""
    told = {each.id for each in at_odds(view) or ()}
    unfit = {*misplaced(view)}

    def order(k: int) -> tuple[Any, ...]:
        slot = view.slots[k]
        return k not in unfit and slot.right, slot.expert not in told, slot.expert in view.due, k

    shown = sorted(range(len(view.slots)), key=order)[:SHOWN]
    return _with_gaps({*shown}, dict(enumerate(view.slots)), len(view.slots))


def _beside(rank: int, cut: int) -> int:
    """Return how many stand between a place and the cut."""
    return rank - cut if rank >= cut else cut - 1 - rank


def _with_gaps(
    shown: Set[int], items: Mapping[int, Item], size: int, chosen: Set[int] = frozenset()
) -> list[Item | Gap]:
    """Return what is shown by its places, with what is left out; a gap of one is not worth it."""
    rows: list[Item | Gap] = []
    for here, places in groupby(range(size), key=lambda place: place in shown):
        run = list(places)
        if here or (len(run) == 1 and run[0] in items):
            rows += [items[place] for place in run]
        else:
            rows.append(Gap(len(run), len(chosen & {*run})))
    return rows
