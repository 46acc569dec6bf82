"""The index of the findings: every one by its id, with a link to the page of its project.

``python -m moe_routing.conformance.pages.findings_index docs/findings.md`` writes the page; the ids
stay anchors of it, so that a link to ``findings.md#id`` leads there.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

_HEAD = """\
# Findings

Where shipped routers differ from this specification, one page a project: each with its smallest
case, what it does, and a report that its owners could be sent. The title of an entry with a clause
is the id of a known divergence in `implementations/known/`, which holds the witness that the suite
replays on every run; an entry that goes out of date turns it red.
[backends.md](backends.md) has the table of what was checked.

This page is made from the others: `python -m moe_routing.conformance.pages.findings_index
docs/findings.md`.
"""

_TITLE = re.compile(r"^(#{1,2}) (.+)$", re.MULTILINE)
_CLAUSE = re.compile(r"\n\n- Clause: `([^`]+)`")


def index(folder: Path) -> str:
    """Return the text of the index of the pages in a folder."""
    parts = [_HEAD]
    for page in sorted(folder.glob("*.md")):
        parts.append("\n".join(_section(page, page.read_text(encoding="utf-8"))))
    return "\n".join(parts)


def _section(page: Path, text: str) -> Iterator[str]:
    """Yield the lines about one page: its projects, and each finding with its clause."""
    for mark, title in _TITLE.findall(text):
        where = f"{page.parent.name}/{page.name}#{anchor(title)}"
        link = f'<a id="{anchor(title)}"></a>[{title}]({where})'
        clause = _CLAUSE.match(text.partition(f"{mark} {title}")[2])
        yield (
            f"\n## {link}\n"
            if mark == "#"
            else f"- {link}" + (f": `{clause[1]}`" if clause else "")
        )
    yield ""


def anchor(title: str) -> str:
    """Return the anchor that a heading has: lower-case words with hyphens."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(index(target.with_suffix("")), encoding="utf-8")
