"""Ranks that a launcher has started, torchrun or another: found by its environment variables.

The first is the run, and calls the others; these are hosts of one rank each, which come to it by
the launcher's store.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from moe_routing.implementations.loading import AdapterError
from moe_routing.implementations.ranks.distributed import Meeting, preload
from moe_routing.implementations.ranks.group import Remote

SECONDS = 60.0
"""The time in which all ranks of a launcher have to come."""

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_WHERE = "moe-routing/where"
_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, kw_only=True)
class Launch:
    """This process among those of a launcher: its rank of how many, and where their store is."""

    rank: int
    size: int
    host: str
    port: int
    has_store: bool

    def store(self) -> Any:
        """Return the store, which the first rank holds unless the launcher does."""
        import torch

        dist: Any = torch.distributed
        holds = self.rank == 0 and not self.has_store
        wait = timedelta(seconds=SECONDS)
        return dist.TCPStore(self.host, self.port, self.size, holds, wait)


def launch_of(environment: Mapping[str, str]) -> Launch | None:
    """Return what a launcher says of this process, or None where there is none, or it is alone.

    Errors: ``AdapterError`` for a variable that is no number.
    """
    if not all(name in environment for name in _VARIABLES):
        return None
    rank, size, port = (_number(environment, n) for n in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
    if size < 2:
        return None
    held = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    host = environment["MASTER_ADDR"]
    return Launch(rank=rank, size=size, host=host, port=port, has_store=held)


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment[name]
    if not value.isdecimal():
        raise AdapterError(f"Expected the variable {name} to be a number but got {value!r}")
    return int(value)


class Others:
    """The other ranks of a launcher, as the first calls them. Errors: ``AdapterError``."""

    def __init__(self, launch: Launch) -> None:
        preload()
        self._launch, self._met = launch, 0
        self._store = launch.store()
        key = secrets.token_hex(16)
        bound = launch.host if launch.host in _LOCAL else ""
        with Listener((bound, 0), authkey=key.encode()) as listener:
            port = listener.address[1]
            self._store.set(_WHERE, f"{launch.host} {port} {key}")
            self.remotes = self._come(listener)

    def meet(self) -> Meeting:
        """Return a place in the store where no group has met."""
        self._met += 1
        launch = self._launch
        prefix = f"moe-routing/{self._met}"
        return Meeting(host=launch.host, port=launch.port, prefix=prefix)

    def _come(self, listener: Listener) -> list[Remote]:
        found: list[Remote] = []
        waiting = threading.Thread(target=self._accept, args=(listener, found), daemon=True)
        waiting.start()
        waiting.join(SECONDS)
        if len(found) < self._launch.size - 1:
            came = sorted({0, *(remote.ranks[0] for remote in found)})
            missing = [str(rank) for rank in range(self._launch.size) if rank not in came]
            raise AdapterError(
                f"No word from rank {', '.join(missing)} after {SECONDS:g} s: every process of the "
                "launcher has to run the same command"
            )
        return sorted(found, key=lambda remote: remote.ranks[0])

    def _accept(self, listener: Listener, found: list[Remote]) -> None:
        while len(found) < self._launch.size - 1:
            pipe: Connection = listener.accept()
            found.append(Remote(pipe, (pipe.recv(),)))


def come(launch: Launch) -> Connection:
    """Return the connection of this rank to the first. Errors: ``AdapterError``."""
    preload()
    try:
        host, port, key = launch.store().get(_WHERE).decode().split()
        pipe: Connection = Client((host, int(port)), authkey=key.encode())
    except (OSError, RuntimeError) as error:
        words = " ".join(str(error).split())[:120]
        raise AdapterError(f"Rank {launch.rank} found no first rank: {words}") from error
    pipe.send(launch.rank)
    return pipe


def serve(environment: Mapping[str, str] = os.environ) -> None:
    """Be one rank of a launcher's, but the first, until that ends."""
    from moe_routing.implementations.ranks.host import Host

    launch = launch_of(environment)
    assert launch is not None, "a launcher has started this process"
    Host(come(launch)).serve()
