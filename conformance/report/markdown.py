"""The Markdown writer: the matrix and the stories, for merge requests and job summaries."""

from __future__ import annotations

import re
from collections import Counter
from html import escape

from moe_routing.conformance.checking.results import AdapterResult, ClauseResult, RunResult
from moe_routing.conformance.checking.status import STATUSES
from moe_routing.conformance.report.plain import printable
from moe_routing.conformance.report.text import (
    broken,
    by_clause,
    counts,
    headline,
    likenesses,
    notes,
    prose,
    story_lines,
    verdict,
)
from moe_routing.reference.checks import counted

LARGEST = 1_000_000
"""The bytes of a text that GitHub still takes as a job summary, with some to spare (1 MiB)."""

_MARKS = re.compile(r"([\\`*_\[\]<>#|~&$])")


def markdown(run: RunResult) -> str:
    """Return the report of a run as GitHub's Markdown, stories left out past ``LARGEST``."""
    lines = [f"## moe-routing: {verdict(run)}", ""]
    lines += [f"- **{literal(headline(each))}**: {literal(counts(each))}" for each in run.adapters]
    lines += [f"- {literal(name)} {in_code(words)}" for name, words in likenesses(run)]
    lines += [f"- {literal(note)}" for note in notes(run)]
    return "\n".join([*lines, "", *_matrix(run), *_stories(run), *_settings(run)]) + "\n"


def literal(text: str) -> str:
    """Return ``text`` as Markdown that shows it literally, in one line."""
    return _escaped(" ".join(printable(text).split()))


def _escaped(text: str) -> str:
    return _MARKS.sub(r"\\\1", text)


def in_code(text: str) -> str:
    """Return prose of ours as Markdown, in one line, with what stands in backticks as code."""
    parts = enumerate(prose(" ".join(text.split())))
    return "".join(f"`{part}`" if number % 2 else _escaped(part) for number, part in parts)


def fenced(lines: list[str]) -> list[str]:
    """Return lines as a code block, whatever they hold."""
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [fence, *lines, fence]


def _matrix(run: RunResult) -> list[str]:
    """The clauses that differ or are not green; the others are counted."""
    rows, alike = by_clause(run), Counter[str]()
    lines = []
    for id_, row in rows.items():
        statuses = {each.status if each else "" for each in row}
        if statuses in ({"pass"}, {"unsupported"}):
            alike.update(statuses)
        else:
            lines.append(f"| `{id_}` | {' | '.join(_cell(each) for each in row)} |")
    if lines:
        names = " | ".join(literal(adapter.name) for adapter in run.adapters)
        lines = [f"| clause | {names} |", "|---" * (1 + len(run.adapters)) + "|", *lines, ""]
    where = " everywhere" if len(run.adapters) > 1 else ""
    words = {1: "clause"}
    counted = (f"{n} {words.get(n, 'clauses')}: {name}{where}.\n" for name, n in alike.items())
    return [*lines, *counted]


def _cell(clause: ClauseResult | None) -> str:
    if clause is None:
        return ""
    words = f"{STATUSES[clause.status].glyph} {clause.status}"
    return words if clause.green else f"**{words}**"


def _stories(run: RunResult) -> list[str]:
    lines: list[str] = []
    size, left_out = 0, 0
    for adapter in run.adapters:
        for clause in broken(adapter):
            story = _story(adapter, clause)
            size += sum(len(line.encode()) + 1 for line in story)
            if size > LARGEST * 3 // 4:
                left_out += 1
            else:
                lines += story
    return [*lines, f"{left_out} more stories are left out.", ""] if left_out else lines


def _story(adapter: AdapterResult, clause: ClauseResult) -> list[str]:
    name = f"{STATUSES[clause.status].glyph} {clause.status} {printable(adapter.name)} {clause.id}"
    return [
        f"<details><summary>{escape(name)}</summary>",
        "",
        *fenced(story_lines(adapter, clause)),
        "",
        "</details>",
        "",
    ]


def _settings(run: RunResult) -> list[str]:
    drawn = f"{counted(run.max_examples, 'case')} drawn per clause"
    return [f"Profile {run.profile}, seed {run.seed}, {drawn}."]
