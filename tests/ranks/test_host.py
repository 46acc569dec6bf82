"""The host, which loads an adapter once for all ranks."""

from __future__ import annotations

import sys
from multiprocessing.connection import Pipe
from typing import Any

import pytest

from moe_routing.implementations import Capabilities
from moe_routing.implementations.ranks import host


class Imports:
    """An adapter that notes whether its backend was imported before there are ranks."""

    name = "imports"

    def __init__(self) -> None:
        self.preloaded = False

    def capabilities(self) -> Capabilities:
        return Capabilities()

    def preload(self) -> None:
        self.preloaded = True


@pytest.mark.parametrize(("device", "early"), [("cpu", True), ("cuda", False)])
def test_a_backend_is_imported_before_the_forks_on_a_cpu_alone(
    device: str, early: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter: Any = Imports()
    monkeypatch.setattr(host, "load_rank", lambda reference, device: adapter)
    ours, theirs = Pipe()
    host.Host(theirs)._load(list(sys.path), "imports", device)
    assert ours.recv()[:2] == ("loaded", "imports")
    assert adapter.preloaded is early
