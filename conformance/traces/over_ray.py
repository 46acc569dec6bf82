"""The same walk over Ray: units of tokens, judged by ``map_batches`` of the same function."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from importlib import import_module
from typing import Any

from moe_routing.conformance.traces.errors import TraceError
from moe_routing.conformance.traces.pieces import Files
from moe_routing.conformance.traces.walk import UNIT, Found, Plan, judge_unit


def walk_over_ray(plan: Plan, progress: Callable[[int], None] = lambda done: None) -> Found:
    """Judge all of it on a cluster of Ray; what is found is equal to what ``walk`` finds.

    The cluster is that of ``RAY_ADDRESS``, as Ray itself reads it, or else one on this machine.
    Every node reads the files by the paths that they have here. Errors: ``TraceError``.
    """
    ray = _ray()
    if not ray.is_initialized():
        ray.init(logging_level="error", log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # this command has its own
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    units = plan.units()
    held = ray.put(pickle.dumps(plan))

    def judged(batch: dict[str, Any]) -> dict[str, Any]:
        own: Plan = pickle.loads(ray.get(held))
        found = [_judged(own, *units[int(unit)]) for unit in batch["id"]]
        return {"id": batch["id"], "found": [pickle.dumps(each) for each in found]}

    found, done = Found(), {}
    dataset = ray.data.range(len(units), override_num_blocks=len(units))
    for row in dataset.map_batches(judged, batch_size=1).iter_rows():
        done[int(row["id"])] = row["found"]
        progress(min(len(done) * UNIT, plan.tokens))
    for unit in range(len(units)):
        one: Found | str = pickle.loads(done[unit])
        if isinstance(one, str):
            raise TraceError(one)
        found.add(one)
    return found


def _judged(plan: Plan, start: int, stop: int) -> Found | str:
    """Judge a unit on a worker; return words on what it cannot read there."""
    files = Files()
    try:
        return judge_unit(plan, start, stop, files)
    except TraceError as error:
        return str(error)
    except OSError as error:
        return f"A worker of Ray cannot read {error.filename}: {error.strerror}"
    finally:
        files.close()


def _ray() -> Any:
    try:
        ray = import_module("ray")
        import_module("ray.data")
    except ImportError as error:
        raise TraceError(
            "--ray needs Ray: python -m pip install 'moe-routing-conformance[ray]'"
        ) from error
    return ray
