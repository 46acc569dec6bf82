"""Shares: how often drawn cases meet each event, and how else it is reached.

Cases are made by the same choices as in the strategies, but from a seeded generator: the
same shares on every run, whatever the version of Hypothesis.
"""

from __future__ import annotations

import argparse
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.cases.kinds import facts_of
from moe_routing.conformance.clauses import CLAUSES, Clause
from moe_routing.conformance.events import EVENTS, FAMILIES, members
from moe_routing.conformance.generators.axes import Choose
from moe_routing.conformance.generators.balance import choose_balance_case
from moe_routing.conformance.generators.capacity import choose_capacity_case
from moe_routing.conformance.generators.choices import (
    Focus,
    choose_call,
    choose_case,
    choose_shared_case,
    seeded,
)
from moe_routing.conformance.generators.expert_gradients import choose_expert_gradient_case
from moe_routing.conformance.generators.experts import choose_experts_case
from moe_routing.conformance.generators.gradients import choose_gradient_case
from moe_routing.conformance.generators.layer import choose_layer_case
from moe_routing.conformance.generators.padding import choose_padded_case
from moe_routing.conformance.generators.permutation import choose_permutation_case
from moe_routing.conformance.generators.ranks import choose_rank_gradient_case
from moe_routing.conformance.generators.replay import choose_replay_case
from moe_routing.conformance.generators.shards import choose_shards_case
from moe_routing.implementations import Capabilities

CASES = 4000
"""The cases drawn from the whole specification."""

PERMUTATIONS = 1000
"""The permutations drawn, of everything that there is to claim."""

DIFFERENTIATED = 1000
"""The calls of gradients drawn, of the whole specification."""

REPLAYED = 400
"""The calls of replay drawn, of everything that there is to claim."""

PADDED = 300
"""The padded batches drawn, of everything that there is to claim."""

LAYERS = 400
"""The calls of experts drawn, of everything that there is to claim."""

LEARNED = 500
"""The calls of experts' gradients drawn, of everything that there is to claim."""

DROPS = 2000
"""The calls of capacities drawn, of everything that there is to claim."""

STEPS = 1000
"""The steps of a balance drawn, of everything that there is to claim."""

COMPOSED = 400
"""The calls of whole layers drawn."""

WHOLE = Capabilities()
Draws = Callable[[Choose], AnyCase]


def _ranks_drawn(choose: Choose) -> AnyCase:
    """Return a call of gradients of ranks, which shows what one without shows, too."""
    return choose_rank_gradient_case(choose, WHOLE)


APART: dict[str, tuple[int, Draws]] = {
    "permuted-": (PERMUTATIONS, lambda choose: choose_permutation_case(choose, WHOLE.permutes)),
    "gradient-": (DIFFERENTIATED, lambda choose: choose_gradient_case(choose, WHOLE, Focus())),
    "ran-": (LAYERS, lambda choose: choose_experts_case(choose, WHOLE)),
    "learned-": (LEARNED, lambda choose: choose_expert_gradient_case(choose, WHOLE)),
    "spread-": (LAYERS, lambda choose: choose_shards_case(choose, WHOLE)),
    "ranked-": (LEARNED, _ranks_drawn),
    "balanced-": (STEPS, lambda choose: choose_balance_case(choose, WHOLE.balances)),
    "dropped-": (DROPS, lambda choose: choose_capacity_case(choose, WHOLE.drops)),
    "replayed-": (REPLAYED, lambda choose: choose_replay_case(choose, WHOLE, Focus())),
    "padded-": (PADDED, lambda choose: choose_padded_case(choose, WHOLE, Focus())),
    "layer-": (COMPOSED, lambda choose: choose_layer_case(choose, WHOLE)),
}
"""The calls of other methods than ``route``, by what the names of their events begin with."""

CASES_A_CLAUSE = 100
"""The cases drawn as each clause draws them."""

_WITHIN = "drawn without it: the clause makes it inside each drawn case"
_OWN = "drawn by the clause that is about it, and by no other"
_LARGER = "larger than what is drawn"
_WIDE = (65, 80, 128, 130, 144, 257, 384)
_PATHS = "sizes that paths of kernels begin at, which lie between those drawn"
_COSTLY = "a case costs as much as hundreds of others"
_AMONG_FINITE = "among finite logits it needs a gate that is not finite"

_NO_SHARES = "drawn for whoever claims groups with from_each, which `Capabilities()` does not"
_NO_SHARED_SLOTS = "drawn for whoever claims shared slots, which `Capabilities()` does not"
_NO_WIDE_GATE = "drawn for whoever claims a float32 gate, which `Capabilities()` does not"
_ONE_ROUTER = "of one router; other routers are drawn with other sizes"
_OF_ONE_SIZE = "a drawn cotangent has one magnitude, which float16 holds, and is not 0"
_EXACTLY = "one number of tokens exactly; others on both sides of it are drawn"
ONLY_CONSTRUCTED = {
    **dict.fromkeys(
        (
            *("share-passes-over-better", "share-of-one", "share-of-several"),
            *("share-under-bias", "share-biased", "share-tied"),
            *("share-of-many-groups", "share-of-many-tokens"),
        ),
        _NO_SHARES,
    ),
    **dict.fromkeys(
        (
            *("shared-slot", "several-shared-slots", "shared-slot-of-another-weight"),
            *("shared-slot-beside-a-scale", "shared-slot-beside-a-norm"),
            *("shared-slot-beside-a-tiny-norm", *members("shared-slot-at")),
        ),
        _NO_SHARED_SLOTS,
    ),
    **dict.fromkeys(
        members("preset"), "too many settings to meet by chance; published sizes are drawn whole"
    ),
    "nan-row": _WITHIN,
    **dict.fromkeys((*members("ran-large"), *members("learned-large")), _LARGER),
    **dict.fromkeys((*members("ran-mixed"), *members("learned-mixed")), _PATHS),
    **dict.fromkeys((*members("permuted-half-empty"), "permuted-experts:1030"), _LARGER),
    **dict.fromkeys(("permuted-slots-above-32", "permuted-tokens-above-65535"), _LARGER),
    "permuted-signed-weights": "drawn weights are all above 0 and below 1, so that they differ",
    "permuted-odd-alignment": "powers of two are drawn, which kernels have",
    **dict.fromkeys((*members("dropped-large"), *members("balanced-large")), _LARGER),
    **dict.fromkeys((*members("layer-large"), "padded-tokens-above-1024"), _LARGER),
    "ran-exact-wide": _LARGER,
    "ran-chosen-inf": "what is drawn of a chosen expert is finite",
    "replayed-layer-above-8": "records of up to three layers are drawn",
    "replayed-signed-weights": "drawn weights are those of routers",
    "learned-zero-weight": "routes whose weights have gradients are drawn",
    "ran-row-offsets-past-16-bits": _LARGER,
    "ran-inner-offsets-past-16-bits": _LARGER,
    "ran-matrix-offsets-past-16-bits": _LARGER,
    "infinite-logit": _WITHIN,
    "nan-logit": _AMONG_FINITE,
    "plus-infinity": _AMONG_FINITE,
    **dict.fromkeys(("batch:65", "batch:129", "batch:512", "batch:1024"), _EXACTLY),
    **dict.fromkeys(
        ("narrow-norm-of-16", "narrow-norm-of-32"), "one number of experts exactly, in 16 bits"
    ),
    **dict.fromkeys(members("sizes"), _ONE_ROUTER),
    **dict.fromkeys(
        (*members("shape"), *members("grouped-shape"), *members("wide")),
        "sizes that lie between those drawn",
    ),
    "each-top-k": "sizes that lie between those drawn",
    "biased-in-many-sizes": _ONE_ROUTER,
    "grouped-in-many-sizes": _ONE_ROUTER,
    "softmax-of-more-than-1024": _COSTLY,
    "bias-decides-beyond-1024": _COSTLY,
    "token-id-above-100000": "the tables drawn have 8 rows",
    **dict.fromkeys(("fine-gate-beside-16-bits", "fine-linear-bias-beside-16-bits"), _NO_WIDE_GATE),
    **dict.fromkeys(("fine-delta-beside-16-bits", "wide-gate-shows-in-weights"), _NO_WIDE_GATE),
    **dict.fromkeys(("gradient-wide-gate", *members("fine-gate-at")), _NO_WIDE_GATE),
    **dict.fromkeys(("gradient-columns-above-128", *members("large-logit-of")), _LARGER),
    **dict.fromkeys(("gradient-columns-above-4096", "gradient-experts-above-512"), _LARGER),
    **dict.fromkeys(("gradient-tokens-above-1024", "gradient-whole-blocks-of-1024"), _COSTLY),
    **dict.fromkeys(("gradient-cotangent-of-all-sizes", "gradient-zero-cotangent"), _OF_ONE_SIZE),
    "gradient-strided-cotangent": "a drawn cotangent lies in rows",
    "balanced-large-logits": "drawn logits are those of routers that train",
    "negative-zero-logit": "a row of it is drawn, but not among others below 0",
    "zeros-tie": "only given logits and gates of one column keep the sign of a zero",
    **dict.fromkeys((*members("all-tie"), *members("lost-block-of")), _LARGER),
    "winners-in-one-lane": "by chance the experts of a token are in several lanes",
    "winners-side-by-side": "by chance the experts of a token are far from each other",
    "shared-wide": _COSTLY,
    "published-width-of-groups": _COSTLY,
    "token-id-above-65535": "the tables drawn have 8 rows",
    "batch-above-50000": _COSTLY,
    "routes-above-65535": _COSTLY,
    "bulk-of-many-experts": _COSTLY,
    "batch-of-many-experts": "a batch of few tokens, which clauses draw, and the strategies do not",
    "outside-claims": "nothing is outside the whole specification",
    "permuted-tokens:4097": _COSTLY,
    "permuted-routes-above-65535": _COSTLY,
    "replayed-id-above-32767": _COSTLY,
    "padded-experts": _OWN,
    "gradient-nan-row": _WITHIN,
    "gradient-exact-sum": "no gate is drawn of zeros alone",
    **dict.fromkeys((f"ran-tokens:{number}" for number in (129, 257, 513, 1025, 4097)), _COSTLY),
    **dict.fromkeys((f"ran-experts:{number}" for number in (60, 129, 257, 300)), _COSTLY),
    **dict.fromkeys((f"ran-slots:{number}" for number in (10, 16, 33)), _COSTLY),
    **dict.fromkeys((f"ran-rows:{number}" for number in (128, 256)), _EXACTLY),
    **dict.fromkeys((f"ran-columns:{number}" for number in _WIDE), _COSTLY),
    **dict.fromkeys((f"ran-width:{number}" for number in _WIDE), _COSTLY),
    "ran-one-hot": _OWN,
    "ran-one-hot-on-input": _OWN,
    "ran-zero-weight": _OWN,
    "ran-zero-weight-overflow": _OWN,
    "ran-absent-first-and-last-not-finite": _OWN,
    "ran-unchosen-nan": _OWN,
    "ran-unchosen-inf": _OWN,
    "learned-absent-not-finite": _OWN,
    "learned-unchosen-nan": _OWN,
    "learned-routes-above-256": _COSTLY,
    "learned-row-offsets-past-16-bits": _LARGER,
    "spread-zero-weight": _OWN,
    **dict.fromkeys((*members("spread-large"), *members("ranked-large")), _LARGER),
}
"""The events that no drawn case is meant to meet, and why."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """The share of drawn cases that meet an event: of all cases, and of those of its clauses.

    ``in_its_clauses`` is None where the clauses have strategies of their own.
    """

    anywhere: float
    in_its_clauses: float | None


@cache
def shares(
    cases: int = CASES, cases_a_clause: int = CASES_A_CLAUSE, one_in: int = 1
) -> dict[str, Share]:
    """Return the share of every event among seeded cases of the whole specification.

    Of what is drawn apart, ``one_in`` so many is.
    """
    shared = _named("shared-")
    routing = [slug for slug in _named("") if not slug.startswith(("shared-", *APART))]
    choose = seeded(0)
    found: Counter[str] = Counter()
    with np.errstate(all="ignore"):
        for _ in range(cases):
            facts = facts_of(choose_case(choose, WHOLE, Focus()), WHOLE)
            found.update(slug for slug in routing if EVENTS[slug].occurs(facts))
            case = choose_shared_case(choose, WHOLE.dtypes)
            found.update(slug for slug in shared if EVENTS[slug].occurs(case))
        in_clauses = _in_clauses(cases_a_clause)
    anywhere = {slug: found[slug] / cases for slug in EVENTS}
    for start, (number, draw) in APART.items():
        anywhere |= _among(_named(start), number // one_in, draw)
    return {
        slug: Share(anywhere=anywhere[slug], in_its_clauses=in_clauses.get(slug)) for slug in EVENTS
    }


def _named(start: str) -> list[str]:
    """Return the events, whose names start so, that drawn cases are meant to meet."""
    return [slug for slug in EVENTS if slug.startswith(start) and slug not in ONLY_CONSTRUCTED]


def _among(slugs: Sequence[str], number: int, draw: Draws) -> dict[str, float]:
    """Return the share of each of these events among drawn calls."""
    choose, found = seeded(0), Counter[str]()
    with np.errstate(all="ignore"):
        for _ in range(number):
            facts = facts_of(draw(choose), WHOLE)
            found.update(slug for slug in slugs if EVENTS[slug].occurs(facts))
    return {slug: found[slug] / number for slug in slugs}


def _in_clauses(cases: int) -> dict[str, float]:
    """Return for each event its share among cases drawn by the clauses that name it."""
    met: Counter[str] = Counter()
    drawn: Counter[str] = Counter()
    for clause in CLAUSES.values():
        slugs = [slug for slug in clause.events if slug not in ONLY_CONSTRUCTED]
        drawn.update({slug: cases for slug in slugs if clause.strategy is None})
        for facts in _facts(clause, cases) if slugs and clause.strategy is None else ():
            met.update(slug for slug in slugs if EVENTS[slug].occurs(facts))
    return {slug: met[slug] / drawn[slug] for slug in drawn}


def _facts(clause: Clause, cases: int) -> Iterator[object]:
    """Yield the facts of a clause's cases, of a seed of its own that no new clause changes."""
    choose, narrowed = seeded(zlib.crc32(clause.id.encode())), clause.narrowed(Capabilities())
    for _ in range(cases):
        yield facts_of(choose_call(choose, narrowed, clause.focus), narrowed)


def conditions_table(met: dict[str, Share] | None = None) -> str:
    """Return the table of events for docs/generators.md as Markdown, one row per family.

    ``met`` are the shares; without them, those of the page.
    """
    met = shares() if met is None else met
    rows = ["| event | what it says | drawn | in its clauses |", "|---|---|---|---|"]
    singles = [event for event in EVENTS.values() if event.family is None]
    for event in singles:
        rows.append(_row(f"`{event.slug}`", event.statement, (event.slug,), met))
    for family, statement in FAMILIES.items():
        slugs = members(family)
        rows.append(_row(f"`{family}:*`, {len(slugs)} of them", statement, slugs, met))
    return "\n".join(rows)


def _row(name: str, statement: str, slugs: tuple[str, ...], met: dict[str, Share]) -> str:
    if slugs[0] in ONLY_CONSTRUCTED:
        return f"| {name} | {statement} | only constructed: {ONLY_CONSTRUCTED[slugs[0]]} | |"
    anywhere = _percent([met[slug].anywhere for slug in slugs])
    looked = [share for slug in slugs if (share := met[slug].in_its_clauses) is not None]
    return f"| {name} | {statement} | {anywhere} | {_percent(looked) if looked else ''} |"


def _percent(values: list[float]) -> str:
    """Return a share as ``12.3 %``, or the least and the greatest of several."""
    ends = dict.fromkeys(f"{100 * value:.1f}" for value in (min(values), max(values)))
    return f"{' to '.join(ends)} %"


_TABLE = re.compile(r"^\| event \|.*\n(?:\|.*\n)+", re.MULTILINE)


def with_shares(page: str, table: str) -> str:
    """Return the page of generators with this table in place of its own."""
    return _TABLE.sub(lambda found: f"{table}\n", page)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the table of events into its page.")
    parser.add_argument("page", type=Path, help="docs/generators.md")
    path = parser.parse_args().page
    path.write_text(with_shares(path.read_text(), conditions_table()))
