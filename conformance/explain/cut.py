"""The cut in words: what the experts chosen had to reach, and by how much they missed it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from moe_routing.conformance.explain.numbers import listed, show
from moe_routing.conformance.explain.token_view import ExpertView, GroupView, TokenView


def cut_words(view: TokenView) -> list[str]:
    """Return whether the experts chosen may be chosen, and if not, by how much they missed it."""
    if wrong := [*_unknown(view), *_repeated(view)]:
        return [_and_left_out(view, wrong)]
    if not view.judged:
        return ["the token's scores are undefined: only its ids are judged"]
    if view.cut is None:
        return ["the table's row decides; no score does"]
    if _strangers(view):
        return _excluded(view)
    if uneven := _uneven(view):
        return uneven
    if (pair := at_odds(view)) is None:
        return [f"{show(view.cut)}; the experts chosen are the reference's"]
    weakest, best = pair
    return [
        f"expert {best.id}, left out, competes with {show(best.competing[0])} or more;",
        f"expert {weakest.id}, chosen, with {show(weakest.competing[1])} or less: "
        f"{_margin(view, best.competing[0] - weakest.competing[1])}",
    ]


def at_odds(view: TokenView) -> tuple[ExpertView, ExpertView] | None:
    """Return the weakest expert that was chosen and the best that was due and left out."""
    chosen = [each for each in view.experts if each.answered]
    left = [each for each in view.experts if each.due and not each.answered]
    if view.share is not None and left:  # of the same group
        chosen, left = ([e for e in some if e.group == left[0].group] for some in (chosen, left))
    if not chosen or not left:
        return None
    weakest = min(chosen, key=lambda each: each.competing[1])
    return weakest, max(left, key=lambda each: each.competing[0])


def _uneven(view: TokenView) -> list[str]:
    """Describe the first group that gives more experts than its share, or fewer."""
    if view.share is None:
        return []
    given = Counter(each.group for each in view.experts if each.answered)
    wrong = [g for g in dict.fromkeys(e.group for e in view.experts) if given[g] != view.share]
    if not wrong:
        return []
    share = f"every group gives {view.share} of the {len(view.slots)}"
    return [f"{given[wrong[0]]} experts were chosen out of group {wrong[0]}, but {share}"]


def misplaced(view: TokenView) -> list[int]:
    """Return the slots that hold no expert, or one that stands in an earlier slot as well."""
    ids = [slot.expert for slot in view.slots]
    again = [] if _table(view) else [k for k, e in enumerate(ids) if e in ids[:k]]
    return sorted({*again, *(k for k, slot in enumerate(view.slots) if slot.permitted is None)})


def _table(view: TokenView) -> bool:
    """Whether a table chose the experts, which may repeat one."""
    return view.judged and view.cut is None


def _unknown(view: TokenView) -> list[str]:
    ids = [slot.expert for slot in view.slots if slot.permitted is None]
    if not ids:
        return []
    return [f"{ids[0]} is no expert" if len(ids) == 1 else f"{listed(ids)} are no experts"]


def _repeated(view: TokenView) -> list[str]:
    known = Counter(slot.expert for slot in view.slots if slot.permitted is not None)
    again = [] if _table(view) else [each for each, number in known.items() if number > 1]
    if not again:
        return []
    if len(again) == 1:
        return [f"expert {again[0]} was chosen {known[again[0]]} times"]
    return [f"experts {listed(again)} were chosen more than once"]


def _and_left_out(view: TokenView, wrong: Sequence[str]) -> str:
    left = [each.id for each in view.experts if each.due and not each.answered]
    if not left:
        return "; ".join(wrong)
    were = f"expert {left[0]} was" if len(left) == 1 else f"experts {listed(left)} were"
    return "; ".join((*wrong, f"{were} left out"))


def _margin(view: TokenView, short: float) -> str:
    """Describe how far the experts chosen are from being right, where a value falls ``short``."""
    if view.explained:
        return "a near tie"
    return f"missed by {show(short, 3)}" if short > 0 else "no groups let them win together"


def _strangers(view: TokenView) -> list[ExpertView]:
    """Return the experts chosen that the reference leaves out with their groups."""
    return [each for each in view.experts if each.answered and not each.kept and not each.due]


def groups_at_odds(view: TokenView) -> list[GroupView]:
    """Return the worst group that was chosen from and left out, and the worst that is kept."""
    strangers = _strangers(view)
    if not strangers or not view.groups:
        return []
    from_ = [view.groups[each.group] for each in strangers if each.group is not None]
    kept = [group for group in view.groups if group.kept]
    return [min(groups, key=lambda group: group.score) for groups in (from_, kept)]


def _excluded(view: TokenView) -> list[str]:
    """Describe how far the groups of the chosen experts are from being kept."""
    worst, least = groups_at_odds(view)
    ids = listed([each.id for each in _strangers(view)])
    return [
        f"experts {ids} were chosen out of groups that are not kept:",
        f"group {worst.id} scores {show(worst.score)}, group {least.id}, kept, "
        f"{show(least.score)}: {_margin(view, least.score - worst.score)}",
    ]
