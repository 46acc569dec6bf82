"""Every backend that is installed and claims the call, side by side, in time and in traffic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatch
from functools import cache, lru_cache
from typing import Any

import pytest
from bench_clocks import Benchmark, Turn, copy_bandwidth, place, time_calls
from bench_inputs import (
    FEW,
    LARGE,
    MANY,
    MIDDLE,
    ONE,
    PREFILL,
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
    registry,
)
from moe_routing.implementations.protocol import offers
from moe_routing.reference import RouterConfig, RouterInputs

MODELS = {"mixtral": (SMALL, MIDDLE, LARGE, MANY), "deepseek_v3": (MIDDLE, LARGE, MANY)}
"""The shipped models whose routers are timed, and at which sizes: a softmax, and a sigmoid
with a selection bias and groups, which needs more experts than it has groups."""

CALLS = [
    *((model, size, "uniform") for model, sizes in MODELS.items() for size in sizes),
    *((model, LARGE, spread) for model in MODELS for spread in SPREADS[1:]),
]
"""What every backend is timed on: every size once, and one size with every spread."""

SERVED = [(model, size, "uniform") for model in MODELS for size in (ONE, FEW, PREFILL)]
"""What is timed on a GPU besides: a decode step, a small batch and a prefill, almost no product."""

DTYPES = {"cpu": "float32", "cuda": "bfloat16"}
"""The dtype that models compute in there."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Time each call on each backend that claims it."""
    device = metafunc.config.getoption("--device")
    wanted = tuple(metafunc.config.getoption("--adapter"))
    if metafunc.config.getoption("--kernels"):
        wanted = ("torch", *filter(needs_gpu, registered()))
    calls = CALLS + SERVED * (device == "cuda")
    found = {call: claiming(*call[:2], device, wanted) for call in calls}
    if metafunc.config.getoption("--kernels"):  # next to torch, which claims all of them
        found = {call: names for call, names in found.items() if len(names) > 1}
    rows = [(*call, name) for call, names in found.items() for name in names]
    ids = [f"{model}-{size}-{spread}-{name}" for model, size, spread, name in rows]
    metafunc.parametrize(("model", "size", "spread", "name"), rows, ids=ids)


@cache
def claiming(model: str, size: Size, device: str, wanted: tuple[str, ...]) -> list[str]:
    """Return the backends that claim a call; of a family the first that does not need a GPU.

    Where some are ``wanted``, by name or glob, these are returned.
    """
    found: dict[str, str] = {}
    for name, adapter in loaded(device, wanted):
        capabilities = adapter.capabilities()
        two = replace(size, tokens=2)  # whether it claims the sizes shows when it is called
        config, inputs = router(model, two), first_of(model, two, device, capabilities.takes)
        if capabilities.admits(config, inputs):
            found.setdefault(name if wanted else name.partition(":")[0], name)
    return list(found.values())


@cache
def first_of(model: str, size: Size, device: str, takes: str) -> RouterInputs:
    """Return the first of the inputs of a call."""
    return next(inputs_of(model, size, "uniform", DTYPES[device], takes))


@cache
def loaded(device: str, wanted: tuple[str, ...]) -> list[tuple[str, Adapter]]:
    """Return every router that can run on ``device``, or those that are wanted, by name."""
    found = []
    for name in registered():
        if not any(fnmatch(name, each) for each in wanted) if wanted else needs_gpu(name):
            continue
        try:
            adapter = load_adapter(name, device=device)
        except (AdapterError, BackendMissing):  # not installed, or not for this device
            continue
        if offers(adapter, "route"):
            found.append((name, adapter))
    return found


def needs_gpu(name: str) -> bool:
    """Return whether an adapter runs a kernel of its own on a GPU, where its registry says so."""
    known = getattr(registry, "needs_gpu", None)
    return known is not None and bool(known(name))


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
    benchmark: Benchmark, model: str, size: Size, spread: str, name: str, device: str, turn: Turn
) -> None:
    adapter = load_adapter(name, device=device)
    takes = adapter.capabilities().takes
    config, inputs = call_of(model, size, spread, device, takes)
    benchmark.group = f"{model}, {size}, {spread}"
    with turn:
        try:
            calls = [prepared(adapter, config, each) for each in inputs]
            calls[0]()  # what routes in one call says only now that its package is missing
        except (BackendMissing, Unsupported) as reason:
            pytest.skip(str(reason))
        time_calls(benchmark, calls, device)
        bandwidth = copy_bandwidth(device)
    traffic = least_traffic(config, inputs[0], takes)
    place(benchmark, f"The router of {model}", f"{size}, {spread}", name)
    benchmark.extra_info |= {"least_bytes": traffic, "copy_bandwidth": bandwidth}
    benchmark.extra_info |= {"whole_call": not isinstance(adapter, Prepares)}
