"""What was judged: the plan, what was found, and what of it is red."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from moe_routing.conformance.traces.agreement import CAUSES
from moe_routing.conformance.traces.blocks import STAGES, STATES
from moe_routing.conformance.traces.known_router import Known
from moe_routing.conformance.traces.tally import Example, Tally
from moe_routing.conformance.traces.walk import Found, Plan

WRONG = tuple(f"wrong {stage}" for stage in STAGES if stage)
"""The causes of tokens that nothing explains."""

OTHERS = tuple(each for each in STATES if each != "wrong")
"""What else a token may be."""

UNPLACED = ("no place", "no ids", "unpaired", "absent in one")
"""Tokens that were not compared: they have no counterpart."""

EXPLAINED = ("ties", "rounding")
"""What explains a token that two traces route differently."""


BY_LOGITS = ("apart", "unexplained", "unknown")
"""What other logits may be the cause of: ones that differ, or that were not recorded."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A trace that was judged, or two; ``may_differ`` is a share of tokens.

    So many may be routed differently without that their logits, as far as they are known, explain
    it: what goes into the routers of two runs is seldom the same.
    """

    plan: Plan
    known: Known
    found: Found
    may_differ: float = 0.0

    @property
    def misplaced(self) -> list[str]:
        """What is said of layers that were found elsewhere."""
        words = [
            f"layer {layer} of {letter} is not routed by its own logits, but by "
            f"{letter}{place.words(layer)}"
            for letter, places in self.plan.own.items()
            for layer, place in places.items()
        ]
        return words + [
            f"layer {layer} of B equals A{place.words(self.plan.paired[layer])}"
            for layer, place in self.plan.pairs.items()
        ]

    def wrong(self, letter: str) -> int:
        """Return the tokens of a trace that nothing explains."""
        return self.found.of[letter].total(WRONG)

    @property
    def differ(self) -> int:
        """The tokens that two traces route differently."""
        return self.found.agreement.total(CAUSES)

    @property
    def unexplained(self) -> int:
        """Those of them that are not explained, without those that may be."""
        tally = self.found.agreement
        compared, differ = tally.total(["alike", *CAUSES]), tally.total(BY_LOGITS)
        rest = tally.total([each for each in CAUSES if each not in (*EXPLAINED, *BY_LOGITS)])
        return rest + (differ if differ > self.may_differ * compared else 0)

    @property
    def judged(self) -> int:
        """The tokens of which anything was judged."""
        own = ("right", "rounding", "unjudged", *WRONG)
        return sum(each.total(own) for each in self.found.of.values()) + (
            self.found.agreement.total(["alike"])
        )

    @property
    def exit_code(self) -> int:
        """0 where all is right or explained; 1 where anything is not, or nothing was judged."""
        wrong = any(self.wrong(each) for each in self.found.of)
        return 1 if wrong or self.misplaced or self.unexplained or not self.judged else 0

    def examples(self) -> Iterator[tuple[str, str, Example]]:
        """Yield the examples that are shown: whose they are, which, and the token."""
        for letter, tally in self.found.of.items():
            yield from _shown(letter, tally, WRONG)
        yield from _shown("", self.found.agreement, CAUSES)


QUIET = (*EXPLAINED, "undefined")
"""Causes whose examples are not red."""


def _shown(
    letter: str, tally: Tally, causes: tuple[str, ...]
) -> Iterator[tuple[str, str, Example]]:
    for cause in causes:
        if cause in tally.first:
            first, smallest = tally.first[cause], tally.smallest[cause]
            yield letter, "first", first
            if (smallest.layer, smallest.token) != (first.layer, first.token):
                yield letter, "smallest", smallest
