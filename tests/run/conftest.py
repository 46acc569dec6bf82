"""Fixtures of tests about what is refused before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from begun import Begun

from moe_routing.conformance.run import session
from moe_routing.conformance.zoo.census import census


@pytest.fixture
def _nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(*_: Any, **__: Any) -> None:
        raise Begun

    monkeypatch.setattr(session, "check", begin)
    monkeypatch.setattr(census, "take", begin)


@pytest.fixture
def _a_file_and_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    Path("folder").mkdir()
