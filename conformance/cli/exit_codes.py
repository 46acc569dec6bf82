"""What the exit codes of each command mean, for its ``--help`` and for the docs."""

from __future__ import annotations

import textwrap

EXIT_CODES = {
    "check": {
        0: "every clause is pass, known or unsupported; every adapter has one that is pass or "
        "known, and ran at least as many cases as the floor; with --baseline: nothing is worse",
        1: "anything else; also a run that was interrupted, or ended by --maxfail, whose report is "
        "partial",
        2: "it could not run: usage, unknown adapter or clause, import failure, missing package; "
        "or a report, or the output, could not be written",
    },
    "compare": {
        0: "every difference is explained: by rounding, by a tie, by a known divergence",
        1: "an answer of some adapter is wrong, or missing; nothing was compared; also an "
        "interrupted run",
        2: "it could not run: fewer than two adapters, no call that all of them claim, usage, "
        "unknown adapter, import failure, missing package; or a file could not be written",
    },
    "judge": {
        0: "every token is right, or explained by rounding; with --against: and so is every "
        "difference",
        1: "a token is wrong, a layer is misplaced, a difference is not explained, or nothing was "
        "judged; also an interrupted run",
        2: "it could not run: a trace that cannot be read, another router's sizes, usage, missing "
        "package; or a file could not be written",
    },
    "audit": {
        0: "every part that could be judged is right, and there is one",
        1: "a part is wrong, or nothing could be judged; also an interrupted run",
        2: "it could not run: no such folder, no weights and no --shrink, no MoE block, a model "
        "that raises, a missing package; or a file could not be written",
    },
    "replay": {
        0: "the case is pass somewhere, and fail, error, crash or timeout nowhere",
        1: "it is one of these somewhere, or pass nowhere: it is unsupported, or inconclusive "
        "(there is nothing in it for the clause to check)",
        2: "it could not run",
    },
    "diff": {
        0: "no clause got worse",
        1: "a change of kind worse, fixed, fewer or vanished, or the new report is partial",
        2: "the reports cannot be read or compared",
    },
    "site": {
        0: "the pages are written, whatever the reports say",
        2: "a report cannot be read, or a page not be written",
    },
    "zoo": {
        0: "every mutant was caught where it should be, and every honest variant passes",
        1: "a mutant survived, an honest variant did not pass, or it was interrupted",
        2: "it could not run, or a file could not be written",
    },
    "explain, known, clauses, adapters, presets, new-adapter, completion": {
        0: "done",
        2: "it could not run, or a file could not be written; `known add` also where the case "
        "does not fail",
    },
}
"""What the exit codes of each command mean."""


def epilog(command: str) -> str:
    """Return what ``--help`` of ``command`` ends with."""
    lines = ["exit codes:"]
    for code, words in EXIT_CODES[command].items():
        lines += textwrap.wrap(words, 78, initial_indent=f"  {code}  ", subsequent_indent="     ")
    return "\n".join(lines)
