"""The environment of a run: what a verdict may depend on besides the adapter."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_PACKAGES = ("numpy", "torch", "triton", "hypothesis", "transformers")


def suite_version() -> str:
    """Return the installed version of this distribution."""
    return version("moe-routing-conformance")


def environment() -> dict[str, Any]:
    """Describe what a verdict may depend on: versions, machine, thread settings."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": usable_cpus(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def usable_cpus() -> int | None:
    """Return the processors that this process may use: the default threads of frameworks."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _version(package: str) -> str | None:
    if package in sys.modules and hasattr(sys.modules[package], "__version__"):
        return str(sys.modules[package].__version__)
    try:
        return version(package)
    except PackageNotFoundError:
        return None
