"""Results: what a run found, as frozen values that writers and callers read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from moe_routing.conformance.case import Case, SharedCase
from moe_routing.conformance.failure import Failure

Status = Literal[
    "pass",
    "fail",
    "known",
    "fixed",
    "error",
    "crash",
    "timeout",
    "unsupported",
    "inconclusive",
]

GREEN = ("pass", "known", "unsupported")
"""The statuses that keep the exit code at 0."""


@dataclass(frozen=True, kw_only=True)
class ClauseResult:
    """One clause on one backend.

    ``constructed`` and ``examples`` count the cases run, ``tokens`` their tokens, frozen
    at the first failure; ``events`` maps each event to ``witnessed``, ``unreachable``,
    ``known`` (only seen where a divergence is known) or ``missing``. ``case`` is the
    smallest failing case, ``case_file`` where it was written, ``failure`` its story,
    ``message`` one line. ``divergences``
    names the known ones, with their reasons.
    """

    id: str
    level: str
    chapter: str
    status: Status
    constructed: int = 0
    examples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    allowance_used: float = 0.0
    message: str = ""
    failure: Failure | None = None
    case: Case | SharedCase | None = None
    case_file: str | None = None
    events: dict[str, str] = field(default_factory=dict)
    divergences: dict[str, str] = field(default_factory=dict)
    drawn: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, kw_only=True)
class AdapterResult:
    """Every clause on one backend, with what it wraps and what it declares.

    ``reference`` is how the run named the adapter, as a replay must name it.
    """

    name: str
    package: str | None
    version: str | None
    numerics: list[str]
    clauses: tuple[ClauseResult, ...]
    reference: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing found here turns a run red."""
        return all(result.status in GREEN for result in self.clauses)

    def summary(self) -> dict[str, int]:
        """Count the clauses by status; ``applicable`` are those the backend supports."""
        counts = Counter(result.status for result in self.clauses)
        return {
            "passed": counts["pass"],
            "failed": counts["fail"] + counts["fixed"],
            "known": counts["known"],
            "inconclusive": counts["inconclusive"],
            "unsupported": counts["unsupported"],
            "errors": counts["error"] + counts["crash"] + counts["timeout"],
            "applicable": len(self.clauses) - counts["unsupported"],
            "in_spec": len(self.clauses),
        }

    def drawn(self) -> Counter[str]:
        """Count the cases run, by dtype and by recipe, as ``dtype:x`` and ``recipe:y``."""
        return sum((result.drawn for result in self.clauses), Counter())


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A whole run: the backends' results and the settings that made them."""

    profile: str
    seed: int
    max_examples: int
    environment: dict[str, Any]
    adapters: tuple[AdapterResult, ...]

    @property
    def exit_code(self) -> int:
        """0 where every applicable clause is pass or known and something was checked, else 1."""
        checked = any(r.status in ("pass", "known") for a in self.adapters for r in a.clauses)
        return 0 if checked and all(adapter.ok for adapter in self.adapters) else 1
