"""Pytest settings of this repository: tests run against the installed package only."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent


def pytest_configure() -> None:
    """Keep the top-level folders from being imported by their bare names."""
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]


def pytest_report_header() -> list[str]:
    """Name what the tests ran against."""
    from moe_routing.conformance.run.environment import environment, suite_version

    packages = ", ".join(f"{k} {v}" for k, v in environment()["packages"].items())
    return [f"moe-routing-conformance {suite_version()}; {packages}"]
