"""Statuses and exit codes: what each means, in one place for the command line and the docs.

``python -m moe_routing.conformance.pages.statuses > docs/statuses.md`` writes the page.
"""

from __future__ import annotations

from moe_routing.conformance.checking.status import STATUSES
from moe_routing.conformance.cli.exit_codes import EXIT_CODES


def page() -> str:
    """Return the page of the docs."""
    lines = ["# Statuses and exit codes", ""]
    lines += [
        "This page is made from the code: `python -m moe_routing.conformance.pages.statuses`.",
        "",
    ]
    lines += [
        "## Statuses of a clause",
        "",
        "| status | turns a run red | means |",
        "|---|---|---|",
    ]
    for status, row in STATUSES.items():
        lines.append(f"| `{status}` | {'no' if row.green else 'yes'} | {row.meaning} |")
    lines += ["", "## Exit codes"]
    for command, codes in EXIT_CODES.items():
        lines += ["", f"### {command}", "", "| code | means |", "|---|---|"]
        lines += [f"| {code} | {words} |" for code, words in codes.items()]
    lines += [
        "",
        "A command that cannot run says why, and how to fix it, in one line on stderr. A reader",
        "that goes away changes no exit code: `moe-routing check ... | head -1` checks and writes",
        "all that was asked for (take the code from `PIPESTATUS`, or `set -o pipefail`).",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
