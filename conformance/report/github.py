"""The GitHub writer: annotations on the adapters' files, and the job summary."""

import os
from collections.abc import Iterator
from pathlib import Path

from moe_routing.conformance.checking.results import AdapterResult, ClauseResult, RunResult
from moe_routing.conformance.report.markdown import markdown
from moe_routing.conformance.report.plain import printable
from moe_routing.conformance.report.text import broken, complaints, story_lines

MOST = 10
"""The annotations of a kind that GitHub shows of one step; it drops what comes after."""


def on_github() -> bool:
    """Return whether this runs in a GitHub workflow."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def summary_path() -> str:
    """Return the path of the job summary; empty if there is none."""
    return os.environ.get("GITHUB_STEP_SUMMARY", "")


def write_summary(run: RunResult) -> None:
    """Append the report to the job summary, where there is one. Errors: ``OSError``."""
    if path := summary_path():
        with Path(path).open("a", encoding="utf-8") as summary:
            summary.write(markdown(run))


def annotations(run: RunResult, *, level: str = "error") -> list[str]:
    """Return a workflow command for each thing that is wrong; the last one counts those left out.

    ``level`` is ``error`` or ``warning``.
    """
    lines = [f"::{level} title=moe-routing::{_escaped(words)}" for _, words in complaints(run)]
    lines += [line for adapter in run.adapters for line in _of(adapter, level)]
    if len(lines) <= MOST:
        return lines
    left_out = f"{len(lines) - MOST + 1} more broken clauses; see the job summary"
    return [*lines[: MOST - 1], f"::{level} title=moe-routing::{left_out}"]


def _of(adapter: AdapterResult, level: str) -> Iterator[str]:
    path = adapter.reference.rpartition(":")[0]
    file = f"file={_property(path)}," if path.endswith(".py") else ""
    for clause in broken(adapter):
        title = _property(f"{clause.status} {adapter.name} {clause.id}")
        yield f"::{level} {file}title={title}::{_data(adapter, clause)}"


def _data(adapter: AdapterResult, clause: ClauseResult) -> str:
    return _escaped("\n".join(story_lines(adapter, clause)))


def _property(text: str) -> str:
    return _escaped(printable(text)).replace(":", "%3A").replace(",", "%2C")


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
