"""An audit as text: a table by block, then what is wrong, then what was not judged."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from rich.text import Text

from moe_routing.conformance.auditing.finding import Finding
from moe_routing.conformance.auditing.outcome import Outcome
from moe_routing.conformance.clauses.registry import rules_of
from moe_routing.conformance.report.columns import Column, table
from moe_routing.conformance.report.plain import printable
from moe_routing.reference.checks import counted

WIDTH = 80
"""The columns of a report."""

_HEADS = {
    "routing": "routing",
    "experts": "experts",
    "layer": "layer",
    "router gradients": "d router",
    "experts gradients": "d experts",
}
_WORDS = {"fail": "FAIL", "known": "known", "pass": "pass", "unjudged": "-"}
"""How a status is shown, the worst first."""

_OTHERS = 46
"""The columns that a table takes besides the paths."""

_TOLD = 3
"""The failures whose story is told; the others have one line."""

_STORY = 14
"""The columns before what a line of a story says."""

_NAMED = 2
"""The modules that are named of those not judged for one reason."""


def text(audit: Outcome, width: int = WIDTH) -> str:
    """Return the report as lines of at most ``width`` columns, where its words allow that."""
    return "\n".join(each.plain.rstrip() for each in lines(audit, width))


def lines(audit: Outcome, width: int, words: str = "") -> Iterator[Text]:
    """Yield the lines of the report; ``words`` say what the model is made of."""
    yield from _wrapped(f"{audit.model}, {words}" if words else audit.model, width)
    if not audit.findings:
        yield Text("no MoE block: nothing in it routes tokens to experts")
        return
    if audit.blocks:
        above = _above(audit.blocks, width)
        yield from [Text(f"blocks below {printable(above)}:")] if above else []
        yield from table(_columns(audit, above), None, width)
    for k, failure in enumerate(audit.failures):
        yield Text()
        yield from _failure(failure, width, told=k < _TOLD)
    yield from _notes(audit, width)
    yield from _unjudged(audit, width)
    yield Text()
    yield Text(closing(audit), style="red" if audit.failures else "")


def closing(audit: Outcome) -> str:
    """Return the last line: how much was judged, and how much of it is wrong."""
    judged = counted(len(audit.judged), "part")
    blocks = counted(len(audit.blocks), "block")
    tokens = sum(each.tokens for each in audit.judged)
    if not audit.judged:
        return "nothing was judged"
    wrong = len(audit.failures)
    known = sum(each.status == "known" for each in audit.findings)
    held = f"{judged} of {blocks} judged, {counted(tokens, 'token')} in all"
    words = f"{wrong} wrong" if wrong else "all right"
    left = sum(each.status == "unjudged" for each in audit.findings)
    excused = f", but for {known} known" if known else ""
    return f"{held}: {words}{excused}" + (f"; {left} not judged" if left else "")


def _above(blocks: Sequence[str], width: int) -> str:
    """Return the module that all blocks lie in, where their paths take too many columns."""
    if max(map(len, blocks)) + _OTHERS <= width:
        return ""
    parts = [each.split(".")[:-1] for each in blocks]
    shared = [each[0] for each in zip(*parts, strict=False) if len(set(each)) == 1]
    firm = sum(1 for k, each in enumerate(shared) if all(p[k] == each for p in parts))
    return ".".join(shared[:firm])


def _columns(audit: Outcome, above: str) -> list[Column]:
    by_part: dict[tuple[str, str], list[Finding]] = {}
    for each in audit.findings:
        by_part.setdefault((each.block, each.part), []).append(each)
    tokens = {
        b: max((f.tokens for f in audit.findings if f.block == b), default=0) for b in audit.blocks
    }
    names = [printable(each.removeprefix(f"{above}.")) for each in audit.blocks]
    columns = [
        Column(head="block", cells=[Text(each) for each in names]),
        Column(head="tokens", cells=[Text(str(tokens[b] or "")) for b in audit.blocks], right=True),
    ]
    for part, head in _HEADS.items():
        cells = [_cell(by_part.get((block, part), ())) for block in audit.blocks]
        columns.append(Column(head=head, cells=cells))
    return columns


def _cell(found: Sequence[Finding]) -> Text:
    """Return the worst of what was found of one part, in the calls of a block."""
    statuses = {each.status for each in found} or {"unjudged"}
    worst = next(each for each in _WORDS if each in statuses)
    return Text(_WORDS[worst], style="red" if worst == "fail" else "")


def _failure(finding: Finding, width: int, *, told: bool) -> Iterator[Text]:
    """Yield where it is wrong, what was answered and permitted, and by which rule."""
    at = "" if finding.token is None else f", token {finding.token}"
    yield Text(printable(f"{finding.path}: {finding.part}{at}"), style="red")
    failure = finding.failure
    if failure is None:
        return
    yield from _wrapped(printable(failure.summary), width, "  ")
    rules = ", ".join(rules_of(finding.clause)[:3])
    yield Text(f"  rule {finding.clause}" + (f" ({rules})" if rules else ""))
    if told:
        for each in failure.details:
            yield from _told(printable(each), width)


def _told(line: str, width: int) -> Iterator[Text]:
    """Yield a line of a story, its columns as they are; what is too long goes on below."""
    first = f"    {line}"
    while len(first) > width:
        cut = first.rfind(" ", _STORY, width + 1)
        cut = width if cut < 0 else cut
        yield Text(first[:cut])
        first = " " * _STORY + first[cut:].lstrip()
    yield Text(first)


def _notes(audit: Outcome, width: int) -> Iterator[Text]:
    found: dict[str, list[str]] = {}
    for each in audit.findings:
        for note in each.notes:
            found.setdefault(note, []).append(each.path)
    for note, paths in found.items():
        yield Text()
        yield from _wrapped(f"note: {_named(paths)}: {printable(note)}", width)


def _unjudged(audit: Outcome, width: int) -> Iterator[Text]:
    found: dict[tuple[str, str], list[str]] = {}
    for each in audit.findings:
        if each.status == "unjudged":
            found.setdefault((each.part, each.reason), []).append(each.path)
    if found:
        yield Text()
        yield Text("not judged:")
    for (part, reason), paths in found.items():
        what = f"{part} of {_named(paths)}" if part else _named(paths)
        yield from _wrapped(f"{what}: {printable(reason)}", width, "  ")


def _named(paths: list[str]) -> str:
    first = ", ".join(printable(each) for each in paths[:_NAMED])
    rest = len(paths) - _NAMED
    return f"{first} and {rest} more" if rest > 0 else first


def _wrapped(words: str, width: int, indent: str = "") -> Iterator[Text]:
    """Yield words over as many lines as they need; one word is never cut."""
    for line in textwrap.wrap(
        words,
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    ):
        yield Text(line)
