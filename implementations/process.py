"""A backend in a process of its own, in any language: it reads requests and writes replies."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, Any, TypeVar

import numpy as np
import numpy.typing as npt

from moe_routing.implementations import wire
from moe_routing.implementations.balances import Balance
from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.differentiates import RouterGradients
from moe_routing.implementations.layouts import AnyRouting, RoutingMap
from moe_routing.implementations.protocol import BackendLost, BackendMissing
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
from moe_routing.reference import (
    BalanceConfig,
    BalanceInputs,
    CapacityConfig,
    ExpertGradients,
    ExpertsConfig,
    ExpertsInputs,
    LayerConfig,
    LayerInputs,
    LayerResult,
    Padding,
    PermutationConfig,
    Placement,
    Recorded,
    RouterConfig,
    RouterInputs,
    Routes,
    Routing,
)
from moe_routing.reference.layouts import Layout

Answer = TypeVar("Answer")

_TAIL = 2**12
_PATIENCE = 5.0  # seconds in which a process that closed its output has to end


class ProcessAdapter:
    """The backend that ``command`` starts, over the protocol of ``docs/protocol.md``.

    It receives every call, claimed or not, and itself refuses what it does not claim. A
    process that has ended is restarted for the next call. Errors: ``BackendMissing`` where
    the command cannot be started, ``BackendLost`` where it does not say hello.
    """

    def __init__(self, command: Sequence[str], device: str = "cpu") -> None:
        if isinstance(command, str) or not command:
            raise ValueError(
                f"Expected command to be a list of words but got {command!r}: write "
                f"['./router', '--fast'], for example"
            )
        self.command, self.device = list(command), device
        self._running: _Running | None = None
        self._start()

    def capabilities(self) -> Capabilities:
        """Return what the backend claimed when it said hello."""
        return self._hello.capabilities

    @property
    def name(self) -> str:
        """What the backend calls itself."""
        return self._hello.name

    def route(self, config: RouterConfig, inputs: RouterInputs) -> AnyRouting:
        """Send the call to the backend, and return its answer.

        Errors: ``Unsupported`` and ``wire.BackendError``, in its words; ``BackendLost``.
        """
        return self._answered(wire.route_request(config, inputs), wire.read_answer)

    def permute(self, config: PermutationConfig, routes: Routes) -> Layout:
        """Send routes to be permuted, and return the answer. Errors: as ``route``."""
        return self._answered(permute_request(config, routes), read_permutation)

    def gradients(
        self, config: RouterConfig, inputs: RouterInputs, cotangent: npt.NDArray[np.float32]
    ) -> RouterGradients:
        """Send the call with its cotangent, and return the gradients. Errors: as ``route``."""
        return self._answered(gradients_request(config, inputs, cotangent), read_gradients)

    def experts(self, config: ExpertsConfig, inputs: ExpertsInputs) -> Any:
        """Send a call of experts, and return the output. Errors: as ``route``."""
        return self._answered(experts_request(config, inputs), read_output)

    def expert_gradients(
        self, config: ExpertsConfig, inputs: ExpertsInputs, cotangent: npt.NDArray[np.float32]
    ) -> ExpertGradients:
        """Send a call of experts with its cotangent. Errors: as ``route``."""
        request = expert_gradients_request(config, inputs, cotangent)
        return self._answered(request, read_expert_gradients)

    def replay(self, config: RouterConfig, inputs: RouterInputs, recorded: Recorded) -> AnyRouting:
        """Send the call with its record, and return the answer. Errors: as ``route``."""
        return self._answered(replay_request(config, inputs, recorded), wire.read_answer)

    def shard(
        self, config: ExpertsConfig, inputs: ExpertsInputs, placement: Placement, rank: int
    ) -> Any:
        """Send a call of a rank's experts, and return its part. Errors: as ``route``."""
        return self._answered(shard_request(config, inputs, placement, rank), read_output)

    def drop(self, config: CapacityConfig, routes: Routes) -> Routing | RoutingMap:
        """Send routes to experts of a capacity, and return what is kept. Errors: as ``route``."""
        return self._answered(drop_request(config, routes), read_drop)

    def route_padded(
        self, config: RouterConfig, inputs: RouterInputs, padding: Padding
    ) -> AnyRouting:
        """Send the call with its padding, and return the answer. Errors: as ``route``."""
        return self._answered(padded_request(config, inputs, padding), wire.read_answer)

    def balance(self, config: BalanceConfig, inputs: BalanceInputs) -> Balance:
        """Send a step, and return its counts, losses and bias. Errors: as ``route``."""
        return self._answered(balance_request(config, inputs), read_balance)

    def layer(self, config: LayerConfig, inputs: LayerInputs) -> LayerResult:
        """Send a call of a layer, and return its answer. Errors: as ``route``."""
        return self._answered(layer_request(config, inputs), read_layer)

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that the backend said it answers."""
        return self._hello.methods

    def _answered(
        self, request: dict[str, Any], read: Callable[[dict[str, Any]], Answer]
    ) -> Answer:
        running = self._running or self._start()
        reply = self._heard(running, request)
        try:
            return read(reply)
        except wire.ProtocolError as error:
            raise self._lost(running, f"{self.command[0]} {error}") from error

    def close(self) -> None:
        """End the process; the next call starts another."""
        if self._running is not None:
            self._running.close()
            self._running = None

    def _start(self) -> _Running:
        running = self._running = _Running(self.command)
        reply = self._heard(running, wire.hello_request(self.device))
        try:
            self._hello = wire.read_hello(reply)
        except (wire.BackendError, wire.ProtocolError) as error:
            raise self._lost(running, f"{self.command[0]} {error}") from error
        return running

    def _heard(self, running: _Running, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return running.reply_to(request)
        except wire.ProtocolError as error:
            raise self._lost(running, f"{self.command[0]} {error}") from error
        except EOFError as error:
            words = f"{self.command[0]} {running.end()}"
            raise self._lost(running, words, "crash") from error

    def _lost(self, running: _Running, words: str, status: Any = "error") -> BackendLost:
        """End the process, since nothing that it writes next can be trusted, and return why."""
        self.close()
        last = running.last_words()
        return BackendLost(f"{words}; it last wrote {last!r}" if last else words, status)


class _Running:
    """A process that has been started: requests in, replies out, and how it ended."""

    def __init__(self, command: Sequence[str]) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._sent = 0
        try:
            self._popen = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
            )
        except OSError as error:
            self._errors.close()
            raise BackendMissing(f"Cannot start {command[0]}: {error.strerror}") from error
        self._stdin, self._stdout = _pipes(self._popen)
        self.close = weakref.finalize(self, _close, self._popen)

    def reply_to(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the reply. Errors: ``EOFError`` where none came, ``wire.ProtocolError``."""
        self._sent += 1
        try:
            self._stdin.write(wire.written({"id": self._sent, **request}))
            self._stdin.flush()
        except OSError as error:
            raise EOFError from error
        line = self._stdout.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return wire.read(line, self._sent)

    def end(self) -> str:
        """Return how a process that has closed its output ended."""
        try:
            code = self._popen.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            return "closed its output but is still running"
        if code >= 0:
            return f"exited with code {code}"
        with suppress(ValueError):  # not every signal has a name
            return f"was killed by {signal.Signals(-code).name}"
        return f"was killed by signal {-code}"

    def last_words(self) -> str:
        """Return the last line that the process wrote to its standard error."""
        self._errors.seek(0, 2)
        self._errors.seek(max(0, self._errors.tell() - _TAIL))
        lines = self._errors.read().decode(errors="replace").split("\n")
        return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")


def _pipes(popen: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    """Return what a process reads and what it writes, both started as pipes."""
    assert popen.stdin is not None
    assert popen.stdout is not None
    return popen.stdin, popen.stdout


def _close(popen: subprocess.Popen[bytes]) -> None:
    """End a process, and wait for it, so that none is left behind."""
    popen.kill()
    popen.wait()
    for pipe in _pipes(popen):
        with suppress(OSError):  # what was not written when it ended
            pipe.close()
