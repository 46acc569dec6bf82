"""The pytest plugin: options and a marker for ``conformance_tests``.

pytest imports this file in every environment where the package is installed, so it imports
nothing but pytest.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from moe_routing.conformance.checking.profiles import PROFILES

ADAPTER = "moe_routing_adapter"
"""The attribute that holds the adapter of a function of ``conformance_tests``."""

ROOTS: list[Path] = []
"""The root folders of the sessions that run, a session within a session last."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; each overrides the ``conformance_tests`` argument of the same name."""
    group = parser.getgroup("moe-routing", "MoE routing conformance")
    group.addoption("--moe-routing-profile", choices=PROFILES, help="how many cases are drawn")
    group.addoption(
        "--moe-routing-seed",
        type=int,
        metavar="N",
        help="draw other cases; default: --hypothesis-seed, or 0",
    )
    group.addoption("--moe-routing-cases", metavar="DIR", help="where failing cases are written")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker that every item of ``conformance_tests`` bears, and note the root."""
    ROOTS.append(config.rootpath)
    config.addinivalue_line("markers", "moe_routing: one clause of the MoE routing conformance")


def pytest_unconfigure() -> None:
    """Forget the root of the session that ends."""
    ROOTS.pop()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the items that ``conformance_tests`` made.

    Here rather than where they are made, so that they work without this plugin, too.
    """
    if hasattr(getattr(item, "function", None), ADAPTER):
        item.add_marker("moe_routing")
