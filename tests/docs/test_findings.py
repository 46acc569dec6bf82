"""The findings: one page a project, and an index that every older link still leads to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from moe_routing.conformance.pages.findings_index import anchor, index

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted((DOCS / "findings").glob("*.md"))

pytestmark = pytest.mark.skipif(not PAGES, reason="the documentation is not here")


def test_the_index_is_made_from_the_pages() -> None:
    assert (DOCS / "findings.md").read_text() == index(DOCS / "findings"), (
        "make it anew: python -m moe_routing.conformance.pages.findings_index docs/findings.md"
    )


def test_an_id_is_an_anchor_of_the_index_once() -> None:
    ids = re.findall(r'<a id="([^"]+)"', (DOCS / "findings.md").read_text())
    assert len(set(ids)) == len(ids), sorted(each for each in ids if ids.count(each) > 1)


@pytest.mark.parametrize("page", [DOCS / "findings.md", *PAGES], ids=lambda page: page.stem)
def test_its_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        file, _, part = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), f"{page.name}: {target}"
        if part and path.suffix == ".md":
            text = path.read_text()
            titles = {anchor(title) for title in re.findall(r"(?m)^#+ (.+)$", text)}
            assert part in titles or f'id="{part}"' in text, f"{page.name}: {target}"
