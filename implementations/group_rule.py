"""Group rules: the group settings that a claim covers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moe_routing.implementations.permitted import (
    ANY,
    AnyValue,
    Closed,
    check_values,
    listed,
    one_of,
)
from moe_routing.reference import Groups
from moe_routing.reference.checks import require_count

PER_KEPT = ("K // kept", "K / kept")
"""Tops that follow from K: the quotient rounded down; and exact, for K that ``kept`` divides."""


def _fills(values: Any) -> None:
    for each in values:
        Groups(count=1, kept=1, fill=each)


def _tops(values: Any) -> None:
    for each in values:
        if each not in PER_KEPT:
            words = f", or one of {', '.join(PER_KEPT)}," if isinstance(each, str) else ""
            require_count(f"each value of GroupRule.top{words}", each, at_least=1)


@dataclass(frozen=True, kw_only=True)
class GroupRule(Closed):
    """The group settings that a claim covers: any count and any number kept, this rule.

    ``top`` lists the supported ``Groups.top`` values (``ANY``: all), ``fill`` the fills. A top of
    ``"K // kept"`` (Megatron) follows from K, which is then ``kept`` or more; ``"K / kept"``
    (TransformerEngine) covers only K that ``kept`` divides. ``from_each`` lists whether every
    group gives its share of K (True, which reads no top and no fill), or the best groups all of
    it. Errors: ``ValueError`` naming the field.
    """

    top: tuple[int | str, ...] | AnyValue = ANY
    fill: tuple[float, ...] = (-math.inf, 0.0)
    from_each: tuple[bool, ...] = (False,)

    def __post_init__(self) -> None:
        check_values("GroupRule.top", self.top, _tops, "(2,), for example", (tuple, AnyValue))
        check_values("GroupRule.fill", self.fill, _fills, "(-math.inf,), for example")
        each = one_of("GroupRule.from_each", (False, True))
        check_values("GroupRule.from_each", self.from_each, each, "(True,), for example")

    def covers(self, groups: Groups, top_k: int) -> bool:
        """Return whether ``groups`` of a router of this K follow this rule.

        A top of K // kept is any top where every group is kept: their scores decide nothing.
        """
        if groups.from_each or groups.from_each not in self.from_each:
            return groups.from_each in self.from_each
        if groups.fill not in self.fill:
            return False
        if groups.kept == groups.count and PER_KEPT[0] in (listed(self.top) or ()):
            return True
        return groups.top in self.top or groups.top in self.tops(top_k, groups.kept)

    @property
    def follows_top_k(self) -> bool:
        """Whether some of the tops follow from K."""
        return not {*PER_KEPT}.isdisjoint(listed(self.top) or ())

    @property
    def divides(self) -> bool:
        """Whether some of the tops are of K alone that ``kept`` divides."""
        return PER_KEPT[1] in (listed(self.top) or ())

    def has_room(self, top_k: int, kept: int) -> bool:
        """Return whether the rule has a top for this K and so many groups kept."""
        return bool(self.with_room((top_k,), kept))

    def with_room(self, numbers: Sequence[int], kept: int) -> Sequence[int]:
        """Return the K among ``numbers`` for which the rule has a top where so many are kept."""
        tops = listed(self.top) or ()
        if not self.follows_top_k or any(isinstance(each, int) for each in tops):
            return numbers
        whole = PER_KEPT[0] in tops
        return [k for k in numbers if k >= kept and (whole or k % kept == 0)]

    def tops(self, top_k: int, kept: int) -> tuple[int, ...]:
        """Return the tops that are listed, as numbers for this K and so many groups kept."""
        found: list[int] = []
        for each in listed(self.top) or ():
            if isinstance(each, int):
                found.append(each)
            elif top_k >= kept and (each == PER_KEPT[0] or top_k % kept == 0):
                found.append(top_k // kept)
        return tuple(dict.fromkeys(found))
