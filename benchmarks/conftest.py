"""Settings of the benchmarks: the device, and the facts of the machine in the saved results."""

from __future__ import annotations

import os
from typing import Any

import pytest
from bench_clocks import clock_of

from moe_routing.conformance.run.environment import environment, suite_version
from moe_routing.conformance.run.isolation.heap import keep_freed_memory


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--device`` and ``--adapter``."""
    parser.addoption("--device", default="cpu", choices=("cpu", "cuda"), help="where backends run")
    parser.addoption(
        "--adapter", action="append", default=[], metavar="GLOB", help="time these backends alone"
    )


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """Return where backends run."""
    return request.config.getoption("--device")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Time by the processor's clock, which other work disturbs less, or the device's."""
    for item in items:
        item.add_marker(pytest.mark.benchmark(timer=clock_of(config.getoption("--device"))))


@pytest.fixture(autouse=True, scope="session")
def heap() -> None:
    """Keep freed memory, as the workers of a run do."""
    keep_freed_memory()


def pytest_benchmark_update_json(
    config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]
) -> None:
    """Add what the numbers depend on."""
    cpu = output_json["machine_info"]["cpu"].get("brand_raw", "unknown")
    output_json["environment"] = {
        "suite": suite_version(),
        **environment(),
        "cpu": cpu,
        "device": _device(config.getoption("--device")),
        "load": round(os.getloadavg()[0], 1),
    }


def _device(name: str) -> str:
    if name == "cpu":
        return "cpu"
    import torch

    return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
