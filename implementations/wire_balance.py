"""The wire of balance: the request, and the parts that answer it."""

from __future__ import annotations

from typing import Any

from moe_routing.implementations import wire
from moe_routing.implementations.balances import Balance
from moe_routing.reference import BalanceConfig, BalanceInputs
from moe_routing.reference.jsonform import to_json


def balance_request(config: BalanceConfig, inputs: BalanceInputs) -> dict[str, Any]:
    """Return the request for a step's balance: the configuration's fields, and the arrays."""
    arrays = {
        name: {"shape": list(array.shape), "values": to_json(array.ravel().tolist())}
        for name, array in inputs.arrays().items()
    }
    return {"request": "balance", "config": dict(vars(config)), "inputs": arrays}


def read_balance(reply: dict[str, Any]) -> Balance:
    """Return the answer to a call of ``balance``.

    Errors: ``Unsupported`` and ``wire.BackendError``, in the backend's words;
    ``wire.ProtocolError``.
    """
    return wire.read_layout(reply, {"balance": Balance})
