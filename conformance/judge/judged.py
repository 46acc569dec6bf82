"""One gradient as the judge sees it: what was answered, and what is permitted once it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from moe_routing.conformance.judge.balls import Ball
from moe_routing.reference.formats import Bools, Numbers


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """One gradient: what was answered, what is permitted, and which numbers are wrong.

    Numbers outside ``permitted.decided`` are not judged: their scores are undefined, or a divisor
    may be 0. ``permit`` makes what is permitted where somebody looks at it. Nobody has to where
    ``certain`` says that all numbers are right, and some of them decided.
    """

    name: str
    answered: Numbers
    given: bool
    permit: Callable[[], Ball]
    certain: Callable[[], bool] = lambda: False

    @cached_property
    def permitted(self) -> Ball:
        """The permitted gradients."""
        return self.permit()

    @cached_property
    def surely_right(self) -> bool:
        """Whether all numbers are right for certain, and some decided, whatever the radius."""
        return "permitted" not in vars(self) and self.certain()

    @cached_property
    def wrong(self) -> Bools:
        """Which numbers rounding cannot explain."""
        if self.surely_right:
            return np.zeros(self.answered.shape, dtype=bool)
        return ~self.permitted.contains(self.answered)

    @property
    def decided(self) -> bool:
        """Whether anything was judged."""
        return self.surely_right or bool(self.permitted.decided.any())
