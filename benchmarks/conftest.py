"""Settings of the benchmarks: the device, and the facts of the machine in the saved results."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from bench_clocks import Turn, clock_of, taking_turns

from moe_routing.conformance.run.environment import environment, suite_version
from moe_routing.conformance.run.isolation.heap import keep_freed_memory

ORDER = pytest.StashKey[list[str]]()
"""All benchmarks that were asked for, those of other shares included."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what says where backends run, which, and which share of the benchmarks is run here."""
    parser.addoption("--device", default="cpu", choices=("cpu", "cuda"), help="where backends run")
    parser.addoption("--kernels", action="store_true", help="time kernels that need a GPU")
    parser.addoption(
        "--share", default="0/1", metavar="K/N", help="run every Nth call, from the Kth"
    )
    parser.addoption("--turns", metavar="FILE", help="whoever uses the device locks this file")
    parser.addoption(
        "--adapter", action="append", default=[], metavar="GLOB", help="time these backends alone"
    )


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """Return where backends run."""
    return request.config.getoption("--device")


@pytest.fixture
def turn(request: pytest.FixtureRequest) -> Turn:
    """Return the turn to use the device, where several processes share one."""
    device, file = request.config.getoption("--device"), request.config.getoption("--turns")
    return taking_turns(Path(file)) if file and device != "cpu" else nullcontext()


def call_of(item: pytest.Item) -> str:
    """Return what benchmarks of the same call share, whose inputs are then made once."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    if "size" not in parameters:
        return item.nodeid
    named = [str(parameters.get(name)) for name in ("model", "size", "spread", "grouped")]
    return "/".join([str(item.path), *named])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep this process's share; time by the processor's clock, or the device's."""
    config.stash[ORDER] = [item.nodeid for item in items]
    place, shares = map(int, config.getoption("--share").split("/"))
    number = {key: at for at, key in enumerate(dict.fromkeys(map(call_of, items)))}
    items[:] = [item for item in items if number[call_of(item)] % shares == place]
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
    output_json["order"] = config.stash[ORDER]
    output_json["environment"] = {
        "suite": suite_version(),
        **environment(),
        "cpu": cpu,
        "device": _device(config.getoption("--device")),
        "load": round(os.getloadavg()[0], 1),
        "jobs": int(config.getoption("--share").partition("/")[2]),
    }


def _device(name: str) -> str:
    if name == "cpu":
        return "cpu"
    import torch

    return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
