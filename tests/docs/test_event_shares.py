"""Shares: drawn cases meet every condition, and the page of generators says how often."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import hypothesis
import numpy as np
from for_each import for_each
from hypothesis import HealthCheck, Phase, given, settings
from nightly import nightly

from moe_routing.conformance import Case, routing_cases
from moe_routing.conformance.cases.kinds import facts_of
from moe_routing.conformance.events import EVENTS
from moe_routing.conformance.pages.event_shares import (
    APART,
    CASES,
    CASES_A_CLAUSE,
    ONLY_CONSTRUCTED,
    Share,
    conditions_table,
    with_shares,
)
from moe_routing.conformance.pages.event_shares import shares as shares_of
from moe_routing.implementations import Capabilities, Claim

PAGE = Path(__file__).parents[2] / "docs" / "generators.md"
WHOLE = Capabilities()

DRAWN, DRAWN_A_CLAUSE, ONE_IN = nightly((500, 20, 3), (CASES, CASES_A_CLAUSE, 1))
"""The cases drawn here, and of what is drawn apart one in so many; all are drawn every night."""


def shares() -> dict[str, Share]:
    return shares_of(DRAWN, DRAWN_A_CLAUSE, ONE_IN)


def drawn_for(row: str) -> int:
    """Return how many cases were drawn that may be those of a row's event."""
    apart = (number for start, (number, _) in APART.items() if row.strip(" `").startswith(start))
    return next((number // ONE_IN for number in apart), DRAWN)


@for_each({slug: slug for slug in EVENTS})
def test_drawn_cases_meet_an_event_or_it_says_why_not(slug: str) -> None:
    if slug not in ONLY_CONSTRUCTED:
        rare = DRAWN < CASES and "%" in written().get(slug, "")
        assert rare or shares()[slug].anywhere > 0.0, (
            f"none of {CASES} cases meets {slug}: draw such, or add the reason to ONLY_CONSTRUCTED"
        )
    elif slug != "outside-claims":
        assert EVENTS[slug].constructed(Capabilities(claims=(Claim.whole(),))) is not None


def test_every_exception_is_an_event_with_a_reason() -> None:
    assert {*ONLY_CONSTRUCTED} <= {*EVENTS}
    assert all(reason for reason in ONLY_CONSTRUCTED.values())


def test_what_a_clause_looks_for_it_finds_at_least_as_often_as_others() -> None:
    """Singled out: the clauses whose focus is one condition."""
    for slug in (
        "empty-batch",
        "one-token",
        "zero-bias",
        "one-group",
        "all-groups-kept",
        "group-smaller-than-top",
        "all-experts-selected",
        "lost-expert",
    ):
        assert shares()[slug].in_its_clauses > shares()[slug].anywhere, slug


def test_hypothesis_draws_what_the_shares_were_counted_on() -> None:
    often = [slug for slug, share in shares().items() if share.anywhere > 0.05]
    often = [slug for slug in often if not slug.startswith(("shared-", *APART))]
    met: set[str] = set()

    @hypothesis.seed(0)
    @settings(
        max_examples=300,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(routing_cases())
    def search(case: Case) -> None:
        facts = facts_of(case, WHOLE)
        met.update(slug for slug in often if slug not in met and EVENTS[slug].occurs(facts))

    with np.errstate(all="ignore"):
        search()
    assert {*often} == met, f"{sorted({*often} - met)} are not met by Hypothesis's own draws"


# The page.

COMMAND = "python -m moe_routing.conformance.pages.event_shares"
FIX = f"run `{COMMAND} docs/generators.md`"


def cells(text: str) -> list[list[str]]:
    """The rows of the tables of four columns in ``text``, by cells."""
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| `")]
    return [row for row in rows if len(row) == 4]


@cache
def written() -> dict[str, str]:
    """Return what the page says of how often each event is drawn."""
    said = {row[0].strip().split(",")[0].strip("`"): row[2] for row in cells(PAGE.read_text())}
    return {slug: said.get(slug, said.get(f"{slug.partition(':')[0]}:*", "")) for slug in EVENTS}


def percents(cell: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+\.\d", cell)]


def words(row: list[str]) -> list[str]:
    return [re.sub(r"\d+\.\d( to)?", "", cell).strip() for cell in row]


def test_the_page_lists_the_events_that_there_are_as_often_as_they_are_drawn() -> None:
    """Words are the same; shares may differ by what another maths library changes."""
    now, then = cells(conditions_table(shares())), cells(PAGE.read_text())
    assert [row[0] for row in now] == [row[0] for row in then], FIX
    for row, written in zip(now, then, strict=True):
        assert words(row) == words(written), FIX
        for column, cases in ((2, drawn_for(row[0])), (3, DRAWN_A_CLAUSE)):
            drawn, said = percents(row[column]), percents(written[column])
            likely = np.maximum(drawn, said or drawn) / 100
            deviations = 100 * np.sqrt(np.maximum(likely, 1 / cases) / cases)
            off = np.abs(np.subtract(drawn, said or drawn)) > 5 * deviations
            assert not off.any(), f"{row[0]}: {row[column]}, not {written[column]}; {FIX}"


def test_the_command_replaces_the_table_and_nothing_else() -> None:
    page = "# Page\n\n| event | old |\n|---|---|\n| `a` | b |\n\nAfter.\n"
    table = conditions_table(shares())
    assert with_shares(page, table) == f"# Page\n\n{table}\n\nAfter.\n"
