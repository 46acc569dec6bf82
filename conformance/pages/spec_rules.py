"""The rules of the specification: under each, the clauses that check it, or why none can.

``python -m moe_routing.conformance.pages.spec_rules docs/spec`` writes them into the pages.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from pathlib import Path

from moe_routing.conformance.clauses import select_clauses
from moe_routing.conformance.clauses.rules import UNCHECKED

_RULE = re.compile(r"^- \*\*([A-Z]+-\d+)\b.*\n(?:  \S.*\n)*", re.MULTILINE)
_WRITTEN = re.compile(r"^  \*(?:Checked by|No clause)[^*]*\*\n", re.MULTILINE)
_WIDTH = 98


def stated(page: str) -> list[str]:
    """Return the ids of the rules that a page states, in its order."""
    return [found[1] for found in _RULE.finditer(page)]


def checked_by(rule: str) -> str:
    """Return in words which clauses check a rule, or why none can. Errors: ``ValueError``."""
    ids = [f"`{each.id}`" for each in select_clauses([]) if rule in each.rules]
    if ids:
        return f"Checked by {', '.join(ids)}."
    if rule in UNCHECKED:
        return f"No clause: {UNCHECKED[rule]}."
    raise ValueError(f"{rule} has no clause, and no reason in conformance/clauses/rules.py")


def with_clauses(page: str) -> str:
    """Return a page in which each rule ends in the sentence of ``checked_by``."""
    return _RULE.sub(lambda found: _WRITTEN.sub("", found[0]) + _line(found[1]), page)


def _line(rule: str) -> str:
    """Return the last sentence of a rule, in italics: it is not part of the requirement."""
    words = f"*{checked_by(rule)}*"
    indent = "  "
    wrapped = textwrap.wrap(
        words,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return "\n".join(wrapped) + "\n"


def write(folder: Path) -> list[Path]:
    """Write the clauses into every page of ``folder``, and return the pages."""
    pages = sorted(folder.glob("*.md"))
    for page in pages:
        page.write_text(with_clauses(page.read_text()))
    return pages


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the clauses of each rule into its page.")
    parser.add_argument("folder", type=Path, help="docs/spec")
    folder = parser.parse_args().folder
    if not write(folder):
        parser.error(f"no page in {folder}")
