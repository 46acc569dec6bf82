"""The page of statuses and exit codes is made from the code, and lists all of them."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from moe_routing.conformance.checking.status import STATUSES, Status
from moe_routing.conformance.cli import COMMANDS
from moe_routing.conformance.cli.exit_codes import EXIT_CODES
from moe_routing.conformance.pages.statuses import page
from moe_routing.conformance.report.diff import RED

PAGE = Path(__file__).parents[2] / "docs" / "statuses.md"


@pytest.mark.skipif(not PAGE.parent.is_dir(), reason="the docs are not here")
def test_the_page_is_current() -> None:
    words = "run python -m moe_routing.conformance.pages.statuses > docs/statuses.md"
    assert PAGE.read_text() == page(), words


def test_every_status_is_listed() -> None:
    assert tuple(STATUSES) == get_args(Status)
    assert not any(row.green and row.broken for row in STATUSES.values())


def test_what_diff_is_red_about_is_listed() -> None:
    assert all(kind in EXIT_CODES["diff"][1] for kind in RED)


def test_every_command_is_listed() -> None:
    listed = {name for names in EXIT_CODES for name in names.split(", ")}
    assert listed == {command.__name__.rpartition(".")[2].replace("_", "-") for command in COMMANDS}
