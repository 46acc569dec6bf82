"""The rules of the specification: the page that states each, and those that no clause can check."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

PAGES = {
    "PIPE": "docs/spec/index.md",
    "LOG": "docs/spec/logits.md",
    "SCO": "docs/spec/scores.md",
    "GRP": "docs/spec/groups.md",
    "SEL": "docs/spec/selection.md",
    "WGT": "docs/spec/weights.md",
    "LAY": "docs/spec/layout.md",
    "INV": "docs/spec/invariance.md",
    "REP": "docs/spec/repetition.md",
    "ROB": "docs/spec/robustness.md",
    "DIS": "docs/spec/dispatch.md",
    "SHA": "docs/spec/shared-experts.md",
    "PERM": "docs/spec/permutation.md",
    "GRAD": "docs/spec/gradients.md",
    "EXP": "docs/spec/experts.md",
    "LAYER": "docs/spec/layer.md",
    "CAP": "docs/spec/capacity.md",
    "SHD": "docs/spec/shards.md",
    "PAD": "docs/spec/padding.md",
    "BAL": "docs/spec/balance.md",
    "RPL": "docs/spec/replay.md",
}
"""The page of a rule, by the letters that its id begins with."""

_PERMITS = "it only permits, so no answer can break it (honest variant: `{}`)"
UNCHECKED = {
    "PIPE-2": _PERMITS.format("softmax-after-top-k"),
    "PIPE-3": "it is about what a backend is given, and `RouterInputs` takes nothing else",
    "SEL-11": _PERMITS.format("slots-by-id"),
    "GRAD-21": "no call of `gradients` has an absent route; where one arises, see below",
    "LAYER-6": _PERMITS.format("layer-scaled-at-the-end"),
    "LAY-3": _PERMITS.format("slots-by-id"),
}
"""The rules that no clause can check, and why."""

_ID = re.compile(rf"({'|'.join(PAGES)})-[1-9]\d*")


def mistake(rules: Sequence[str]) -> str | None:
    """Return what is wrong with the rules that a clause names, in words, or None."""
    if not rules:
        return "it names no rule of docs/spec"
    odd = [rule for rule in rules if not _ID.fullmatch(rule)]
    return f"{odd[0]!r} is no id of a rule, such as WGT-1" if odd else None


def by_page(rules: Iterable[str]) -> dict[str, list[str]]:
    """Return rules by the pages that state them, in the order given."""
    pages: dict[str, list[str]] = {}
    for rule in rules:
        pages.setdefault(PAGES[rule.partition("-")[0]], []).append(rule)
    return pages


def cited(rules: Iterable[str]) -> list[str]:
    """Return rules in words, a line for each page: ``SEL-4, SEL-5 (docs/spec/selection.md)``."""
    return [f"{', '.join(found)} ({page})" for page, found in by_page(rules).items()]


def rule_lines(rules: Sequence[str]) -> list[str]:
    """Return the lines of a story that name the rules of its clause, each with its page."""
    heads = ["rule" if len(rules) == 1 else "rules", *[""] * len(rules)]
    return [f"{head:<10}{line}" for head, line in zip(heads, cited(rules), strict=False)]
