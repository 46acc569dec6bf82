"""The plan: which clauses a run checks, on how many cases, with which seed, and what is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from moe_routing.conformance.cases.kept import Examples
from moe_routing.conformance.checking.profiles import DEFAULT, PROFILES
from moe_routing.conformance.clauses import Clause
from moe_routing.conformance.known.divergence import Divergence
from moe_routing.conformance.trial.repeats import REPEATS


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run: clauses, cases drawn a clause, the suite seed, and the known divergences.

    ``kept`` are cases of earlier runs that are checked before any is drawn; ``seconds`` is
    what drawing may take for each clause, or None. ``bulk`` adds the calls that cost
    seconds each, ``huge`` those that cost gigabytes. ``past`` names edges (``checking.edges``)
    that are left out, or granted.
    Unless it ``shrinks``, failing cases are not made smaller. ``dtype`` narrows every
    clause to inputs of one dtype. ``repeats`` is how often a call is made again where a clause
    repeats it; ``series`` is how many batches of a series are called, and how many members of a
    large family of events, or None for all.
    """

    clauses: Sequence[Clause]
    max_examples: int = PROFILES[DEFAULT].max_examples
    seed: int = 0
    known: Sequence[Divergence] = ()
    kept: Examples = field(default_factory=dict)
    seconds: float | None = None
    bulk: bool = False
    huge: bool = False
    past: tuple[str, ...] = ()
    shrinks: bool = True
    dtype: str | None = None
    repeats: int = REPEATS
    series: int | None = None

    def unshipped(self) -> Plan:
        """Return the plan for an adapter that is not shipped, without the shipped divergences."""
        return replace(self, known=[each for each in self.known if not each.shipped])

    def touching(self, adapter: str, clause: Clause) -> list[Divergence]:
        """Return the known divergences whose regions are left out of a clause's search."""
        return [each for each in self._about(adapter) if each.touches(adapter, clause.id)]

    def _about(self, adapter: str) -> Sequence[Divergence]:
        """Return the known divergences that name the adapter: of more than a hundred, few."""
        found = self._by_adapter.get(adapter)
        if found is None:
            found = [each for each in self.known if adapter in each.adapters]
            self._by_adapter[adapter] = found
        return found

    @cached_property
    def _by_adapter(self) -> dict[str, Sequence[Divergence]]:
        return {}

    def listed(self, adapter: str, clause: Clause) -> list[Divergence]:
        """Return the known divergences that are about this very clause."""
        return [each for each in self.touching(adapter, clause) if each.clause == clause.id]
