"""A census as JSON, and as a page of Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from moe_routing.conformance.run.environment import environment, suite_version
from moe_routing.conformance.zoo.census.census import Census
from moe_routing.conformance.zoo.families import FAMILIES, LATER
from moe_routing.conformance.zoo.residents import HONEST, MUTANTS

SCHEMA = 1
"""The version of the JSON schema."""


def as_json(census: Census) -> dict[str, Any]:
    """Return the census as data: the kill matrix, the draws, the survivors, the alarms."""
    plan = census.plan
    return {
        "schema": SCHEMA,
        "suite_version": suite_version(),
        "environment": environment(),
        "seeds": list(plan.seeds),
        "max_examples": plan.max_examples,
        "clauses": list(plan.clauses),
        "cases": census.cases,
        "asked": census.answers,
        "seconds": round(census.seconds, 1),
        "partial": bool(census.ended),
        "not_run": [{"clause": each.clause, "seed": each.seed} for each in census.not_run],
        "survivors": [{"mutant": name, "seed": seed} for name, seed in census.survivors],
        "mutants": [_mutant(census, name) for name in plan.mutants],
        "variants": [_variant(census, name) for name in plan.variants],
    }


def _mutant(census: Census, name: str) -> dict[str, Any]:
    mutant, small = MUTANTS[name], census.smallest.get(name)
    return {
        "name": name,
        "family": mutant.family,
        "real": mutant.real,
        "harm": mutant.harm,
        "needs": mutant.needs,
        "median_draws": census.median_draws(name),
        "smallest": small
        and {"clause": small.clause, "tokens": small.tokens, "experts": small.experts},
        "kills": [
            {
                "clause": kill.clause,
                "seed": kill.seed,
                "names_family": kill.named,
                "constructed": kill.event or None,
                "draws": kill.drawn or None,
            }
            for kill in census.kills
            if kill.mutant == name
        ],
    }


def _variant(census: Census, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "why": HONEST[name].why,
        "declares": HONEST[name].declares.declared(),
        "alarms": [
            {"clause": each.clause, "seed": each.seed, "message": each.message}
            for each in census.alarms
            if each.variant == name
        ],
    }


def as_markdown(census: Census, command: str) -> str:
    """Return the page of a census that ``command`` made: figures, mutants, variants, clauses."""
    return (
        "\n\n".join(
            [
                f"# The zoo: {' and '.join(_kinds(census))}",
                _INTRODUCTION,
                f"Made by `{command}`:",
                *_partial(census),
                _figures(census),
                *([_mutants(census)] if census.plan.mutants else []),
                *([] if census.ended or not census.plan.mutants else [_by_clause(census)]),
                *([_later()] if census.plan.mutants else []),
                *([_variants(census)] if census.plan.variants else []),
                "",
            ]
        ).rstrip()
        + "\n"
    )


_INTRODUCTION = """\
A suite is worth what it catches, and what it lets pass without a false alarm. So it is tested on
two kinds of made-up routers. A **mutant** is a right router with exactly one bug that really
shipped, named after it: each must be caught, by a clause that names the bug's family. An **honest
variant** differs from the plain router only as the specification permits, or as it declares: each
must pass every clause. [How to read and repeat this](zoo-how-to.md)."""


def _kinds(census: Census) -> list[str]:
    kinds = {"mutants": census.plan.mutants, "honest variants": census.plan.variants}
    return [words for words, names in kinds.items() if names]


def _partial(census: Census) -> Iterator[str]:
    """Yield what a page says of a run that ended early."""
    if census.ended:
        more = "." if census.not_run else ", and failing cases were being made smaller."
        ended = census.ended.capitalize()
        yield f"**{ended}: this page is partial.** {census.progress.capitalize()} ran{more}"


def _figures(census: Census) -> str:
    plan = census.plan
    lines = [census.caught(seed) for seed in census.seeds] if plan.mutants else []
    if plan.mutants:
        bare = [n for n, small in census.smallest.items() if not MUTANTS[n].needs]
        small = sum(census.smallest[n].readable for n in bare)
        lines.append(
            f"smallest cases: {small} of {len(bare)} have at most 4 tokens and 8 experts, "
            f"not counting {len(census.smallest) - len(bare)} bugs that need more"
        )
    if plan.variants:
        lines.append(census.passed)
    lines.append(
        f"{plan.max_examples} cases drawn per clause, {len(plan.clauses)} clauses, "
        f"{census.cases:,} cases, {census.answers:,} answers judged, {census.seconds:,.0f} s"
    )
    return "\n".join(f"- {line}" for line in lines)


def _mutants(census: Census) -> str:
    rows = [
        "## Mutants",
        "",
        "*Draws*: cases drawn up to the first kill in the quickest clause that names the family, "
        "the median over the seeds; *built*: a constructed case catches it as well. *Smallest*: "
        "tokens x experts of the smallest failing case.",
        "",
        "| mutant | what it did | where | draws | built | smallest | caught by |",
        "|---|---|---|---|---|---|---|",
    ]
    missed = "not yet" if census.ended else "**survives**"
    for name in census.plan.mutants:
        mutant, small = MUTANTS[name], census.smallest.get(name)
        killers = census.killers(name)
        built = any(kill.event for kills in killers.values() for kill in kills)
        draws = census.median_draws(name)
        size = f"{small.tokens} x {small.experts}" if small else ""
        rows.append(
            f"| `{name}` | {mutant.harm} | {mutant.real} | "
            f"{'' if draws is None else f'{draws:g}'} | {'yes' if built else ''} | {size}"
            f"{f' (needs {mutant.needs})' if mutant.needs else ''} | "
            f"{', '.join(f'`{clause}`' for clause in killers) or missed} |"
        )
    return "\n".join(rows)


def _by_clause(census: Census) -> str:
    named = Counter(kill.clause for kill in census.kills if kill.named)
    every = Counter(kill.clause for kill in census.kills)
    seeds = len(census.plan.seeds)
    rows = [
        "## Clauses",
        "",
        "How many mutants each clause catches, on average over the seeds: of the families that "
        "it names, and of all.",
        "",
        "| clause | of its families | of all |",
        "|---|---|---|",
    ]
    for clause in census.plan.clauses:
        rows.append(f"| `{clause}` | {named[clause] / seeds:g} | {every[clause] / seeds:g} |")
    return "\n".join(rows)


def _variants(census: Census) -> str:
    rows = ["## Honest variants", "", "| variant | what permits it | declares | alarms |"]
    rows.append("|---|---|---|---|")
    for name in census.plan.variants:
        variant = HONEST[name]
        alarms = [alarm for alarm in census.alarms if alarm.variant == name]
        declared = ", ".join(f"`{each}`" for each in variant.declares.declared())
        rows.append(f"| `{name}` | {variant.why} | {declared} | {len(alarms)} |")
    return "\n".join(rows)


def _later() -> str:
    rows = ["## Families", "", "| family | about |", "|---|---|"]
    rows += [f"| {family} | {words} |" for family, words in FAMILIES.items()]
    if LATER:
        rows += ["", "Left for later:", "", "| family | waits for |", "|---|---|"]
        rows += [f"| {family} | {words} |" for family, words in LATER.items()]
    return "\n".join(rows)
