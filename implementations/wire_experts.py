"""The wire of experts: requests, and the output or the gradients that answer them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.implementations import wire
from moe_routing.reference import ExpertGradients, ExpertsConfig, ExpertsInputs, Placement
from moe_routing.reference.jsonform import to_json


@dataclass(frozen=True, kw_only=True)
class ExpertsReply:
    """The answer to a call of ``experts``, as the key ``experts`` holds it."""

    output: Any


def experts_request(config: ExpertsConfig, inputs: ExpertsInputs) -> dict[str, Any]:
    """Return the request to run experts: the configuration's fields, and the arrays there are."""
    arrays: dict[str, Any] = {"dtype": inputs.dtype}
    for name, array in inputs.arrays().items():
        arrays[name] = {"shape": list(array.shape), "values": to_json(array.ravel().tolist())}
    return {"request": "experts", "config": dict(vars(config)), "inputs": arrays}


def shard_request(
    config: ExpertsConfig, inputs: ExpertsInputs, placement: Placement, rank: int
) -> dict[str, Any]:
    """Return the request to run a rank's experts: that of experts, the placement, the rank."""
    where = {
        "num_ranks": placement.num_ranks,
        "rank_of": placement.rank_of.tolist(),
        "logical_of": placement.logical_of.tolist(),
    }
    return {**experts_request(config, inputs), "request": "shard", "placement": where, "rank": rank}


def read_output(reply: dict[str, Any]) -> Any:
    """Return the answer to a call of ``experts`` or ``shard``.

    Errors: ``Unsupported`` and ``wire.BackendError``, in the backend's words;
    ``wire.ProtocolError``.
    """
    return wire.read_layout(reply, {"experts": ExpertsReply}).output


def expert_gradients_request(
    config: ExpertsConfig, inputs: ExpertsInputs, cotangent: npt.NDArray[np.float32]
) -> dict[str, Any]:
    """Return the request for gradients of experts: that to run them, and the cotangent."""
    table = {"shape": list(cotangent.shape), "values": to_json(cotangent.ravel().tolist())}
    return {
        **experts_request(config, inputs),
        "request": "expert_gradients",
        "cotangent": table,
    }


def read_expert_gradients(reply: dict[str, Any]) -> ExpertGradients:
    """Return the answer to a call of ``expert_gradients``. Errors: as ``read_output``."""
    return wire.read_layout(reply, {"expert_gradients": ExpertGradients})
