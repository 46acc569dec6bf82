"""A backend in a process of its own, in any language: it reads requests and writes replies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from moe_routing.implementations import wire
from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.process_running import Conversation
from moe_routing.implementations.wire_balance import balance_request, read_balance
from moe_routing.implementations.wire_capacity import drop_request, read_drop
from moe_routing.implementations.wire_experts import (
    expert_gradients_request,
    experts_request,
    read_expert_gradients,
    read_output,
    shard_request,
)
from moe_routing.implementations.wire_gradients import gradients_request, read_gradients
from moe_routing.implementations.wire_layer import layer_request, read_layer
from moe_routing.implementations.wire_padding import padded_request
from moe_routing.implementations.wire_permutation import permute_request, read_permutation
from moe_routing.implementations.wire_replay import replay_request

Call = ParamSpec("Call")
Answer = TypeVar("Answer")


def _sent(
    request: Callable[Call, dict[str, Any]], read: Callable[[dict[str, Any]], Answer]
) -> Callable[Concatenate[ProcessAdapter, Call], Answer]:
    """Return the method that sends the ``request`` of its arguments, and reads the reply."""

    def method(self: ProcessAdapter, /, *call: Call.args, **named: Call.kwargs) -> Answer:
        return self.answered(request(*call, **named), read)

    return method


class ProcessAdapter(Conversation):
    """The backend that a command starts, over the protocol of ``docs/protocol.md``.

    It receives every call, claimed or not, and itself refuses what it does not claim. Errors of
    every method: ``Unsupported`` and ``wire.BackendError``, in its words; ``BackendLost``.
    """

    @property
    def name(self) -> str:
        """What the backend calls itself."""
        return self.hello.name

    def capabilities(self) -> Capabilities:
        """Return what the backend claimed when it said hello."""
        return self.hello.capabilities

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that the backend said it answers."""
        return self.hello.methods

    route = _sent(wire.route_request, wire.read_answer)
    permute = _sent(permute_request, read_permutation)
    gradients = _sent(gradients_request, read_gradients)
    experts = _sent(experts_request, read_output)
    expert_gradients = _sent(expert_gradients_request, read_expert_gradients)
    replay = _sent(replay_request, wire.read_answer)
    shard = _sent(shard_request, read_output)
    drop = _sent(drop_request, read_drop)
    route_padded = _sent(padded_request, wire.read_answer)
    balance = _sent(balance_request, read_balance)
    layer = _sent(layer_request, read_layer)
