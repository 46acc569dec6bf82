"""Statuses and exit codes: what each means, once, for the command line and for the docs.

``python -m moe_routing.conformance.pages.statuses > docs/statuses.md`` writes the page.
"""

from __future__ import annotations

from moe_routing.conformance.checking.results import GREEN
from moe_routing.conformance.cli.exit_codes import EXIT_CODES

MEANINGS = {
    "pass": "every case was right, and every reachable condition of the clause was seen",
    "fail": "an answer that the specification does not permit, or one that changed when the "
    "same call was repeated",
    "known": "a listed divergence, whose witness still goes wrong; outside its region all is "
    "well. Also a clause of which the regions leave nothing to ask",
    "fixed": "a listed divergence whose witness is right now: remove the entry, at the line that "
    "the message names",
    "error": "the backend raised on a call that it claims, answered in no known layout, or "
    "replaced functions that the suite computes with; or the suite itself went wrong, and says so",
    "crash": "the adapter's process, or one that it runs its backend in, ended (a signal, an "
    "exit), or took more memory than it may",
    "timeout": "no answer in time; the adapter's process was ended",
    "unsupported": "the claims, methods or layout of the backend leave nothing to ask; it does "
    "not count as a pass",
    "inconclusive": "a condition that could be seen under the claims was not: no verdict",
}
"""What each status of a clause means."""


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
    for status, words in MEANINGS.items():
        lines.append(f"| `{status}` | {'no' if status in GREEN else 'yes'} | {words} |")
    lines += ["", "## Exit codes"]
    for command, codes in EXIT_CODES.items():
        lines += ["", f"### {command}", "", "| code | means |", "|---|---|"]
        lines += [f"| {code} | {words} |" for code, words in codes.items()]
    lines += ["", "What cannot run says why, and the mend, in one line on stderr."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
