"""Every backend that is installed and claims the call, side by side, in time and in traffic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

import pytest
from bench_clocks import Benchmark, copy_bandwidth, place, time_calls
from bench_inputs import (
    LARGE,
    MANY,
    MIDDLE,
    SMALL,
    SPREADS,
    Size,
    inputs_of,
    least_traffic,
    router,
)

from moe_routing.implementations import (
    Adapter,
    AdapterError,
    BackendMissing,
    Prepares,
    Unsupported,
    load_adapter,
    registered,
)
from moe_routing.reference import RouterConfig, RouterInputs

MODELS = {"mixtral": (SMALL, MIDDLE, LARGE, MANY), "deepseek_v3": (MIDDLE, LARGE, MANY)}
"""The shipped models whose routers are timed, and at which sizes: a softmax, and a sigmoid
with a selection bias and groups, which needs more experts than it has groups."""

CALLS = [
    *((model, size, "uniform") for model, sizes in MODELS.items() for size in sizes),
    *((model, LARGE, spread) for model in MODELS for spread in SPREADS[1:]),
]
"""What every backend is timed on: every size once, and one size with every spread."""

DTYPES = {"cpu": "float32", "cuda": "bfloat16"}
"""The dtype that models compute in there."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Time each call on each backend that claims it."""
    device = metafunc.config.getoption("--device")
    rows = [(*call, name) for call in CALLS for name in claiming(call[0], call[1], device)]
    ids = [f"{model}-{size}-{spread}-{name}" for model, size, spread, name in rows]
    metafunc.parametrize(("model", "size", "spread", "name"), rows, ids=ids)


@cache
def claiming(model: str, size: Size, device: str) -> list[str]:
    """Return the backends that claim a call; of a family only the first."""
    found: dict[str, str] = {}
    for name, adapter in loaded(device):
        capabilities = adapter.capabilities()
        two = replace(size, tokens=2)  # whether it claims the sizes shows when it is called
        config, inputs = call_of(model, two, "uniform", device, capabilities.takes)
        if capabilities.admits(config, inputs[0]):
            found.setdefault(name.partition(":")[0], name)
    return list(found.values())


def loaded(device: str) -> Iterator[tuple[str, Adapter]]:
    """Yield every adapter that can run on ``device``, by its registered name."""
    for name in registered():
        try:
            yield name, load_adapter(name, device=device)
        except (AdapterError, BackendMissing):  # not installed, or not for this device
            continue


@lru_cache(maxsize=1)
def call_of(
    model: str, size: Size, spread: str, device: str, takes: str
) -> tuple[RouterConfig, list[RouterInputs]]:
    """Return the configuration of a call, and its inputs in turn."""
    inputs = inputs_of(model, size, spread, DTYPES[device], takes)
    return router(model, size), list(inputs)


def prepared(adapter: Adapter, config: RouterConfig, inputs: RouterInputs) -> Callable[[], Any]:
    """Return the call alone where the adapter can make it ready, or else all of ``route``."""
    if isinstance(adapter, Prepares):
        return adapter.prepare(config, inputs)
    return lambda: adapter.route(config, inputs)


def test_backend(
    benchmark: Benchmark, model: str, size: Size, spread: str, name: str, device: str
) -> None:
    adapter = load_adapter(name, device=device)
    takes = adapter.capabilities().takes
    config, inputs = call_of(model, size, spread, device, takes)
    try:
        calls = [prepared(adapter, config, each) for each in inputs]
        calls[0]()  # what routes in one call says only now that its package is missing
    except (BackendMissing, Unsupported) as reason:
        pytest.skip(str(reason))
    benchmark.group = f"{model}, {size}, {spread}"
    time_calls(benchmark, calls, device)
    traffic = least_traffic(config, inputs[0], takes)
    place(benchmark, f"The router of {model}", f"{size}, {spread}", name)
    benchmark.extra_info |= {"least_bytes": traffic, "copy_bandwidth": copy_bandwidth(device)}
    benchmark.extra_info |= {"whole_call": not isinstance(adapter, Prepares)}
