"""The pages of the specification name the clauses of each rule, as the command writes them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from moe_routing.conformance.pages.spec_rules import checked_by, stated, with_clauses
from moe_routing.reference import SPEC_VERSION

SPEC = Path(__file__).parents[2] / "docs" / "spec"
COMMAND = "python -m moe_routing.conformance.pages.spec_rules"
PAGES = sorted(SPEC.glob("*.md"))

PAGE = """\
# Weights

- **WGT-1** Weights MUST come from unbiased scores.
- **WGT-2** Slot k's weight MUST be that of slot k's expert. *Always*, and
  whatever was *Checked by* others.

- **SEL-11 Order.** The K slots MAY be in any order.
- an item that is no rule, though **WGT-3** is named
"""


@pytest.mark.skipif(not PAGES, reason="the docs are not here")
def test_the_first_page_names_the_version_of_today() -> None:
    words = (SPEC / "index.md").read_text()
    assert f"\nVersion {SPEC_VERSION}. " in words


@pytest.mark.skipif(not PAGES, reason="the docs are not here")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_pages_are_current(page: Path) -> None:
    assert page.read_text() == with_clauses(page.read_text()), f"run {COMMAND} docs/spec"


@pytest.mark.skipif(not PAGES, reason="the docs are not here")
def test_the_command_writes_the_clauses_of_today(tmp_path: Path) -> None:
    folder = tmp_path / "spec"
    shutil.copytree(SPEC, folder)
    page = folder / "weights.md"
    page.write_text(page.read_text().replace("weights.unbiased", "weights.of-yesterday"))
    subprocess.run([sys.executable, *COMMAND.split()[1:], folder], check=True)
    for path in PAGES:
        assert (folder / path.name).read_text() == path.read_text(), path.name


def test_a_rule_ends_in_its_clauses_or_in_the_reason() -> None:
    first, second, third = (line for line in with_clauses(PAGE).splitlines() if "  *" in line)
    assert first == f"  *{checked_by('WGT-1')}*"
    assert second == f"  *{checked_by('WGT-2')}*"
    assert third.startswith("  *No clause: it only permits")


def test_nothing_but_those_lines_changes_and_twice_is_once() -> None:
    once = with_clauses(PAGE)
    assert with_clauses(once) == once
    rest = [line for line in once.splitlines() if not line.startswith(("  *C", "  *N", "  `"))]
    assert rest == PAGE.splitlines()


def test_a_long_line_is_wrapped_and_written_anew_all_the_same() -> None:
    page = with_clauses("- **PIPE-1** A backend MUST be right.\n")
    assert len(page.splitlines()) > 2
    assert max(len(line) for line in page.splitlines()) <= 100
    assert with_clauses(page) == page


def test_the_rules_of_a_page_are_the_items_that_begin_with_an_id() -> None:
    assert stated(PAGE) == ["WGT-1", "WGT-2", "SEL-11"]


def test_a_rule_without_clause_and_reason_is_refused() -> None:
    with pytest.raises(ValueError, match=r"WGT-99 has no clause, and no reason in"):
        checked_by("WGT-99")
