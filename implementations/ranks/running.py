"""Ranks in processes that stay warm: loaded, called all at once, started anew after a loss."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from moe_routing.implementations.loading import AdapterError
from moe_routing.implementations.protocol import BackendLost, BackendMissing
from moe_routing.implementations.ranks.failed import failure
from moe_routing.implementations.ranks.group import Group, Here, HostLost
from moe_routing.implementations.ranks.launched import Others
from moe_routing.implementations.unsupported import Unsupported

SHARE = 1 / 3
"""The part of a call's time that its ranks have: the rest is for ending them, and for others."""


class RunningRanks:
    """Several ranks of an adapter under torch.distributed; ``head`` is what its host read of it.

    A rank that dies, raises or hangs is named, and all are started anew for the next call. With
    ``others``, all but the first are processes of a launcher's.
    Errors: ``AdapterError`` and ``BackendMissing`` where the adapter cannot be loaded.
    """

    def __init__(
        self,
        reference: str,
        ranks: int,
        *,
        device: str = "cpu",
        seconds: float = 60.0,
        others: Others | None = None,
    ) -> None:
        self.device, self._size, self._others = device, ranks, others
        self._reference, self._seconds = reference, SHARE * seconds
        self.head = self._loaded()

    def _loaded(self) -> tuple[Any, ...]:
        """Start the host of this machine, and return the head of the adapter that it loads."""
        others = self._others
        self._here = Here(range(self._size) if others is None else (0,))
        remotes = [self._here.remote, *(others.remotes if others else ())]
        meet = others.meet if others else self._here.meet
        self._group = Group(remotes, self._size, self._seconds, meet)
        try:
            return self._group.load(self._reference, self.device)
        except (AdapterError, BackendMissing):
            self.close()
            raise

    @property
    def host(self) -> int:
        """The number of the process that holds the ranks of this machine."""
        return self._here.process

    def called(self, method: str, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call a method on every rank, and return all answers. Errors: ``BackendLost``."""
        try:
            heard = self._group.call(method, calls)
        except HostLost:
            self._here.close()
            self._loaded()
            raise
        answers = heard.of("answer")
        if len(answers) == self._size:
            return [answers[rank] for rank in range(self._size)]
        if len(refused := heard.of("refused")) == self._size:
            raise Unsupported(refused[0])
        raise failure(heard, self._group.places(), self._seconds)

    def close(self) -> None:
        """End the ranks, and the process that holds them; those of a launcher stay."""
        if self._others is not None:
            with suppress(BackendLost):  # what has ended needs no end
                self._group.stop()
        self._here.close()
