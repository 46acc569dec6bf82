"""Statuses and exit codes: what each means, once, for the command line and for the docs.

``python -m moe_routing.conformance.statuses > docs/statuses.md`` writes the page.
"""

from __future__ import annotations

from moe_routing.conformance.diff import RED
from moe_routing.conformance.results import GREEN

MEANINGS = {
    "pass": "every case was right, and every reachable condition of the clause was seen",
    "fail": "an answer that the specification does not permit, or one that changed when the "
    "same call was repeated",
    "known": "a listed divergence, whose witness still goes wrong; outside its region all is "
    "well. Also a clause of which the regions leave nothing to ask",
    "fixed": "a listed divergence whose witness is right now: remove the entry, at the line that "
    "the message names",
    "error": "the backend raised on a call that it claims, answered in no known layout, or "
    "replaced functions that the suite computes with",
    "crash": "the adapter's process, or one that it runs its backend in, ended (a signal, an "
    "exit), or took more memory than it may",
    "timeout": "no answer in time; the adapter's process was ended",
    "unsupported": "the claims, methods or layout of the backend leave nothing to ask; it does "
    "not count as a pass",
    "inconclusive": "a condition that could be seen under the claims was not: no verdict",
}
"""What each status of a clause means."""

EXIT_CODES = {
    "check": {
        0: "every clause is pass, known or unsupported; every adapter has one that is pass or "
        "known, and was asked as many cases as the floor; with --baseline: nothing is worse",
        1: "anything else; also an interrupted run, whose report is partial",
        2: "it could not run: usage, unknown adapter or clause, import failure, missing package",
    },
    "replay": {
        0: "the case is pass or unsupported on every adapter",
        1: "the case is fail, error, crash or timeout on one of them",
        2: "it could not run",
    },
    "diff": {
        0: "no clause got worse",
        1: f"a change of kind {', '.join(RED[:-1])} or {RED[-1]}, or the new report is partial",
        2: "the reports cannot be read, or not be compared",
    },
    "zoo": {
        0: "every mutant was caught where it should be, and every honest variant passes",
        1: "a mutant lived, or a variant did not pass",
        2: "it could not run",
    },
    "explain, known, clauses, adapters, new-adapter": {
        0: "it is done",
        2: "it could not be done; `known add` also where the case does not fail",
    },
}
"""What the exit codes of each command mean."""


def page() -> str:
    """Return the page of the docs."""
    lines = ["# Statuses and exit codes", ""]
    lines += ["This page is made from the code: `python -m moe_routing.conformance.statuses`.", ""]
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
