"""A comparison as text and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from moe_routing.conformance.clauses.registry import CHAPTERS
from moe_routing.conformance.compare.cases import EVENTS
from moe_routing.conformance.compare.comparing import Comparison
from moe_routing.conformance.compare.counts import BUCKETS, LAST, Counts, Key
from moe_routing.conformance.compare.routers import Router
from moe_routing.conformance.compare.smallest import Example
from moe_routing.conformance.events import FAMILIES
from moe_routing.conformance.report.columns import Column, table
from moe_routing.conformance.report.markdown import fenced, literal
from moe_routing.conformance.report.plain import printable
from moe_routing.reference.checks import counted

FIGURES = {"tokens": 8, "differ": 6, "rounding": 8, "ties": 5, "undefined": 9, "known": 5}
"""The counts that are shown, and the columns of the terminal that each takes at least."""

_MOST = 4
"""The routers of which each has a column; of more, only those that are wrong."""

_FIRST = 14
"""The columns of the terminal that the names of rows take at least."""

_ALWAYS = ("tokens", "differ", "rounding", "ties")
"""The counts that are shown even where there is none."""


def lines(comparison: Comparison, width: int) -> Iterator[Text]:
    """Yield what the terminal shows."""
    for each in comparison.routers:
        yield Text(f"{each.letter} {_head(each)}", style="italic")
    for title, rows in _sections(comparison):
        yield Text()
        yield from table(_columns(comparison.routers, title, rows), None, width)
    for example in comparison.examples:
        yield Text()
        yield Text(_title(comparison, example), style="red" if example.router else "yellow")
        yield from (Text(f"  {line}") for line in _story(example))
    yield Text()
    yield from (Text(each) for each in closing(comparison))


def markdown(comparison: Comparison) -> str:
    """Return the comparison as GitHub's Markdown."""
    names = " and ".join(literal(each.name) for each in comparison.routers)
    text = [f"## moe-routing compare: {names}", ""]
    text += [f"- {literal(each)}" for each in closing(comparison)]
    text += [f"- {each.letter}: {literal(_head(each))}" for each in comparison.routers]
    for title, rows in _sections(comparison):
        columns = _columns(comparison.routers, title, rows)
        heads = " | ".join(each.head.strip() for each in columns)
        text += ["", f"| {heads} |", "|---" + "|--:" * (len(columns) - 1) + "|"]
        for row in range(len(rows)):
            text.append(f"| {' | '.join(each.cells[row].plain.strip() for each in columns)} |")
    for example in comparison.examples:
        text += ["", f"**{literal(_title(comparison, example))}**", "", *fenced(_story(example))]
    plan = comparison.plan
    settings = f"Profile {comparison.profile}, seed {plan.seed}, "
    settings += f"{counted(plan.max_examples, 'case')} drawn per clause."
    return "\n".join([*text, "", settings]) + "\n"


def closing(comparison: Comparison) -> list[str]:
    """Return the lines that a comparison ends with: what is known, and the verdict."""
    total, known = comparison.tables.total(), comparison.tables.known
    found = [
        f"known divergence of {name}: {id_} ({counted(cases, 'case')})"
        for (name, id_), cases in known.items()
    ]
    given = f"{counted(total.cases, 'case')}, {counted(total.tokens, 'token')}"
    found += [f"{given}: {total.differ} routed differently", *_explained(total)]
    found += [f"{each.name} is wrong: {_wrongs(total, each)}" for each in comparison.broken]
    found += [f"{each.name} ended too often: it was given no more" for each in comparison.ended]
    if not total.tokens:
        found.append("nothing was compared")
    elif not comparison.broken:
        found.append("every difference is explained" if total.differ else "no token differs")
    return [printable(each) for each in found]


def _explained(total: Counts) -> list[str]:
    causes = {"by rounding": total.rounding, "by ties": total.ties, "undefined": total.undefined}
    words = ", ".join(f"{count} {words}" for words, count in causes.items() if count)
    return [f"of these {words}"] if words else []


def _wrongs(total: Counts, router: Router) -> str:
    wrong, failed = total.wrong[router.letter], total.failed[router.letter]
    words = [f"the answer to {counted(wrong, 'token')}"] if wrong else []
    return " and ".join([*words, *([f"no answer to {counted(failed, 'case')}"] if failed else [])])


def _head(router: Router) -> str:
    about = router.about
    wraps = f" ({about.package} {about.version})" if about.package else ""
    declared = about.capabilities.numerics.declared()
    return printable(
        f"{router.name}{wraps}" + (f"  declares {', '.join(declared)}" if declared else "")
    )


def _sections(comparison: Comparison) -> list[tuple[str, dict[str, Counts]]]:
    """Return the tables that are shown, each with its title; the last ends in the total."""
    tables, sizes = comparison.tables, (*BUCKETS, LAST)
    found = [
        ("cases", tables.by(_part, (EVENTS, *(f"{each}:" for each in FAMILIES), *CHAPTERS))),
        ("dtype", tables.by(lambda key: key.dtype, ("float32", "bfloat16", "float16"))),
        ("experts", tables.by(lambda key: key.experts, sizes)),
        ("tokens a call", tables.by(lambda key: key.calls_of, sizes)),
    ]
    return [*found, ("", {"total": tables.total()})]


def _part(key: Key) -> str:
    """Return the chapter of a case; of an event, its family where it has one, as ``family:``."""
    family, colon, _ = key.event.partition(":")
    return f"{family}:" if colon else key.part


def _columns(routers: Sequence[Router], title: str, rows: dict[str, Counts]) -> list[Column]:
    """Return the columns of a table, as wide in every table of a comparison."""
    counts = [*rows.values()]
    shown = [
        (name, width)
        for name, width in FIGURES.items()
        if name in _ALWAYS or any(getattr(row, name) for row in counts)
    ]
    figures = [
        _figures(
            name.rjust(width), [_cell(getattr(row, name)) for row in counts], name not in _ALWAYS
        )
        for name, width in shown
    ]
    named = [
        each
        for each in routers
        if len(routers) <= _MOST or any(_wrong(row, each) for row in counts)
    ]
    wrong = [_figures(f"wrong {r.letter}", [_wrong(row, r) for row in counts]) for r in named]
    first = Column(head=title, cells=[Text(each.ljust(_FIRST)) for each in rows])
    return [first, *figures, *wrong]


def _figures(head: str, cells: Sequence[str], leaves: bool = False) -> Column:
    return Column(head=head, cells=[Text(each) for each in cells], right=True, leaves=int(leaves))


def _cell(count: int) -> str:
    return str(count) if count else ""


def _wrong(row: Counts, router: Router) -> str:
    """Return the wrong tokens of a router, and after a plus the calls without answer."""
    wrong, failed = row.wrong[router.letter], row.failed[router.letter]
    return f"{wrong or ''}+{failed}" if failed else _cell(wrong)


def _title(comparison: Comparison, example: Example) -> str:
    names = {each.letter: each.name for each in comparison.routers}
    if example.router is None:
        return f"the smallest case that {example.title}"
    return f"wrong: {printable(names[example.router])}, by {example.clause}"


def _story(example: Example) -> list[str]:
    title = [example.title] if example.router else []
    found = [printable(each) for each in (*title, *example.lines)]
    return [*found, f"Reproduce with: {printable(example.reproduce)}"]
