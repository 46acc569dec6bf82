"""The counts of a comparison: tokens by part, dtype and sizes, and what explains differences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from moe_routing.conformance.compare.cases import Picked
from moe_routing.conformance.compare.routers import NO_ANSWER
from moe_routing.conformance.compare.routes import Routes

BUCKETS = {"up to 8": 8, "9 to 64": 64, "65 to 256": 256}
"""The buckets of sizes, each with the greatest size in it, but for the last."""

LAST = "257 or more"
"""The last bucket."""


def bucket(size: int) -> str:
    """Return the bucket of a size."""
    return next((name for name, most in BUCKETS.items() if size <= most), LAST)


@dataclass(frozen=True, kw_only=True, order=True)
class Key:
    """What is counted apart: the part and event of a case, its dtype, its buckets of E and T."""

    part: str
    event: str
    dtype: str
    experts: str
    calls_of: str


@dataclass
class Counts:
    """Tokens and cases of one key or of several, by what became of them.

    ``wrong`` are tokens refused by the letter of the router, ``failed`` calls without answer;
    what a known divergence covers is counted as ``known`` alone.
    """

    cases: int = 0
    tokens: int = 0
    differ: int = 0
    rounding: int = 0
    ties: int = 0
    undefined: int = 0
    known: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)

    def add(self, other: Counts) -> None:
        """Add the counts of another key."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class Tables:
    """The counts of a comparison, by key; ``known`` counts cases by router and divergence."""

    rows: dict[Key, Counts] = field(default_factory=dict)
    known: Counter[tuple[str, str]] = field(default_factory=Counter)

    def note(self, picked: Picked, routes: Routes) -> None:
        """Count the tokens of one case."""
        case = picked.case
        key = Key(
            part=picked.part,
            event=picked.event,
            dtype=case.dtype,
            experts=bucket(case.config.num_experts),
            calls_of=bucket(case.num_tokens),
        )
        row = self.rows.setdefault(key, Counts())
        row.cases += 1
        self._note_wrong(row, routes)
        if routes.compared:
            row.tokens += case.num_tokens
            for name in ("differ", "rounding", "ties", "undefined"):
                setattr(row, name, getattr(row, name) + int(getattr(routes, name).sum()))

    def _note_wrong(self, row: Counts, routes: Routes) -> None:
        for router, stage, refused in zip(
            routes.routers, routes.stages, routes.refused, strict=True
        ):
            if stage is None:
                continue
            if excuse := routes.excuse(router, stage):
                row.known += int(refused.sum())
                self.known[router.name, excuse] += 1
            elif stage in NO_ANSWER:
                row.failed[router.letter] += 1
            else:
                row.wrong[router.letter] += int(refused.sum())

    def total(self) -> Counts:
        """Return the counts of all."""
        return self.by(lambda key: "").get("", Counts())

    def by(self, name: Callable[[Key], str], among: Iterable[str] = ("",)) -> dict[str, Counts]:
        """Return the counts by a name of the key; those ``among`` stand first, where counted."""
        found: dict[str, Counts] = {}
        for key, row in self.rows.items():
            found.setdefault(name(key), Counts()).add(row)
        first = [each for each in among if each in found]
        order = (*first, *(each for each in found if each not in first))
        return {each: found[each] for each in order}
