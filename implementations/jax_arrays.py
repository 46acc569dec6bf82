"""JAX for adapters of routers that are written in it: arrays, and a call that is compiled whole."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import fields
from functools import cache, wraps
from typing import Any

from moe_routing.implementations.foreign_arrays import array_inputs
from moe_routing.implementations.promises import Promises
from moe_routing.implementations.protocol import missing
from moe_routing.implementations.tensors import TorchInputs
from moe_routing.reference import RouterConfig, RouterInputs, Routing

Call = Callable[[RouterConfig, TorchInputs], Routing]

TIES = Promises(ties="lowest")
"""What ``jax.lax.top_k`` documents: of equal elements the one of the lower index comes first."""

_OPTIONS = {
    "xla_allow_excess_precision": False,  # else float32 stays between 16-bit operations
    "xla_backend_optimization_level": 0,  # a program serves one call
    "xla_llvm_disable_expensive_passes": True,
}


def imported_jax() -> Any:
    """Import JAX. Errors: ``BackendMissing``."""
    try:
        return importlib.import_module("jax")
    except ModuleNotFoundError as error:
        raise missing("jax", "jax", error, "python -m pip install jax") from error


def jax_inputs(inputs: RouterInputs, device: str) -> TorchInputs:
    """Make the arrays of a routing call in JAX, on its CPU. Errors: ``BackendMissing``."""
    jax = imported_jax()
    with jax.default_device(jax.devices("cpu")[0]):
        return array_inputs(inputs, jax.numpy)


@cache
def _compiled(call: Call) -> Any:
    def pure(config: RouterConfig, arrays: dict[str, Any]) -> tuple[Any, Any]:
        found = call(config, TorchInputs(**arrays))
        return found.weights, found.expert_ids

    return imported_jax().jit(pure, static_argnums=0, compiler_options=_OPTIONS)


def jitted(call: Call) -> Call:
    """Compile a call as one program for each configuration and shape, as its models are run.

    Operation by operation JAX would compile some thirty programs for every shape. Each is rounded
    to the dtype that the code gives it, which XLA leaves out where it fuses unless it is told.
    """

    @wraps(call)
    def run(config: RouterConfig, given: TorchInputs) -> Routing:
        arrays = {each.name: getattr(given, each.name) for each in fields(given)}
        weights, ids = _compiled(call)(config, arrays)
        return Routing(weights=weights, expert_ids=ids)

    return run
