"""The docs as a site: every page has its place, and mkdocs, where it is, builds it strictly."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="needs pyyaml")

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "mkdocs.yml"
OF_THE_ROOT = {"readme.md", "changes.md"}

pytestmark = pytest.mark.skipif(not CONFIG.is_file(), reason="the source tree is not here")


class Loader(yaml.SafeLoader):  # type: ignore[misc, name-defined]
    """YAML in which a name of Python is not looked up."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def pages(nav: Any) -> Iterator[str]:
    """Yield the files that a navigation names."""
    for entry in nav:
        if isinstance(entry, str):
            yield entry
        else:
            for below in entry.values():
                yield from pages(below)


def test_every_page_of_the_docs_has_one_place() -> None:
    named = Counter(pages(yaml.load(CONFIG.read_text(), Loader)["nav"]))
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert set(named) == there | OF_THE_ROOT, "name each page of docs/ in the nav of mkdocs.yml"
    assert max(named.values()) == 1


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs mkdocs")
def test_it_builds_without_a_warning(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    built = subprocess.run(
        [*program, "--site-dir", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "index.html").is_file()
