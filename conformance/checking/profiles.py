"""The profiles of a run: how much each draws, and what else it decides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moe_routing.conformance.trial.repeats import REPEATS


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One profile: ``max_examples`` cases are drawn for each clause, besides the constructed ones.

    ``explores`` marks the profile that is run to find something new rather than to gate: it
    takes another seed every time, may be held to a budget of seconds, makes the calls that
    cost seconds each, and keeps failing cases for later runs in ``examples``. ``repeats`` is how
    often a call is made again where a clause repeats it, ``series`` how many batches of a series
    and members of a large family of events are called, or all; ``huge`` makes calls that cost
    gigabytes, and makes no failing case smaller, since none that is smaller fails; ``clauses`` are
    the clauses of a run that names none, or all.
    """

    max_examples: int
    repeats: int = REPEATS
    series: int | None = None
    clauses: tuple[str, ...] = ()
    explores: bool = False
    huge: bool = False
    examples: Path | None = None


PROFILES = {
    "smoke": Profile(max_examples=1, repeats=32, series=4),
    "ci": Profile(max_examples=100),
    "nightly": Profile(max_examples=2000, explores=True, examples=Path("moe-routing-examples")),
    "huge": Profile(max_examples=1, clauses=("experts.large-offsets",), huge=True),
    "soak": Profile(max_examples=3, repeats=20_000, clauses=("repetition.every-time",)),
}
"""Every profile by its name."""

SMALL = tuple(name for name, each in PROFILES.items() if not each.huge)
"""The profiles of what makes no huge call."""

DEFAULT = "ci"
"""The profile of a run that names none."""
