"""What the site of the docs needs: pages of the root, and links that leave ``docs``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "readme.md", "CHANGELOG.md": "changes.md"}
"""The files of the root that are pages of the site, and their names there."""

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(((?:\.\./)+|(?=docs/))([^)#\s]*)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of the root."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links of the root's pages into ``docs``, and those out of it to what the site has."""
    from_root = page.file.src_uri in PAGES.values()
    above = "../" * page.file.src_uri.count("/")

    def mended(found: re.Match[str]) -> str:
        picture, words, ups, path, place = found.groups()
        if from_root and path.startswith("docs/"):
            return f"{picture}[{words}]({path.removeprefix('docs/')}{place or ''})"
        outside = len(ups) // 3 > page.file.src_uri.count("/")
        if not outside:
            return found[0]
        named = f"{above}{PAGES[path]}{place or ''}" if path in PAGES else ""
        return f"[{words}]({named})" if named else words

    if from_root:
        markdown = re.sub(r"\]\((?!https?:|#|docs/)[^)]*\)", "]()", markdown)
        markdown = re.sub(r"\[([^\]]*)\]\(\)", r"\1", markdown)
    return _LINK.sub(mended, markdown)
