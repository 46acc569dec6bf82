"""An adapter of one rank, as the suite calls it: all ranks at once, and one answer of all."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.loading import AdapterError
from moe_routing.implementations.protocol import BackendLost, BackendMissing
from moe_routing.implementations.ranks.group import Group, Here, HostLost, Round
from moe_routing.implementations.ranks.launched import Others
from moe_routing.implementations.unsupported import Unsupported
from moe_routing.reference import ExpertsConfig, ExpertsInputs, Placement

METHODS = {"on_rank": "on_ranks", "rank_gradients": "gradients_on_ranks"}
"""The methods of an adapter of one rank, and those through which the suite calls all ranks."""

SHARE = 1 / 3
"""The part of a call's time that its ranks have: the rest is for ending them, and for others."""


class OnRanks:
    """Several ranks of an adapter under torch.distributed, in processes that stay warm.

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
        self.name, self.wraps, claimed, methods = self._loaded()
        self.methods = tuple(METHODS[name] for name in methods)
        self._capabilities = of_so_many(reference, claimed, ranks)

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

    def capabilities(self) -> Capabilities:
        """Claim what a rank's adapter claims, on so many ranks."""
        return self._capabilities

    def on_ranks(
        self, config: ExpertsConfig, batches: Sequence[ExpertsInputs], placement: Placement
    ) -> list[Any]:
        """Return what each rank answers of its own tokens. Errors: ``BackendLost``."""
        calls = [(config, each, placement, rank) for rank, each in enumerate(batches)]
        return self.called("on_rank", calls)

    def gradients_on_ranks(
        self,
        config: ExpertsConfig,
        batches: Sequence[ExpertsInputs],
        placement: Placement,
        cotangents: Sequence[npt.NDArray[np.float32]],
    ) -> list[Any]:
        """Return each rank's gradients. Errors: ``BackendLost``."""
        calls = [
            (config, each, placement, rank, cotangents[rank]) for rank, each in enumerate(batches)
        ]
        return self.called("rank_gradients", calls)

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
        raise self._lost(heard)

    def close(self) -> None:
        """End the ranks, and the process that holds them; those of a launcher stay."""
        if self._others is not None:
            with suppress(BackendLost):  # what has ended needs no end
                self._group.stop()
        self._here.close()

    def _lost(self, heard: Round) -> Exception:
        """End the ranks, and return what has become of them."""
        if missing := heard.of("missing"):
            self._group.stop()
            return BackendMissing(next(iter(missing.values())))
        places = self._group.places()
        if died := heard.of("died"):
            return BackendLost(f"{_each(died)}{self._rest(heard, places)}", "crash", costly=True)
        if raised := heard.of("raised"):
            return BackendLost(f"{_raised(raised)}{self._rest(heard, places)}", costly=True)
        if heard.late:
            return BackendLost(
                f"no answer from {self._waiting(heard, places)}", "timeout", costly=True
            )
        refused = heard.of("refused")
        return BackendLost(f"{_ranks([*refused])} refused a call that others answered")

    def _rest(self, heard: Round, places: dict[int, str]) -> str:
        """Return where the ranks are that were left waiting."""
        silent = [f"rank {r}{_at(places.get(r, ''))}" for r in heard.silent]
        return f"; no answer from {_and(silent)}" if silent else ""

    def _waiting(self, heard: Round, places: dict[int, str]) -> str:
        named = [f"rank {rank}{_at(places.get(rank, ''))}" for rank in heard.silent]
        done = [rank for rank in range(self._size) if rank not in heard.silent]
        answered = f"; {_ranks(done)} had answered" if done else ""
        return f"{_and(named)} after {self._seconds:g} s{answered}"


def of_so_many(reference: str, claimed: Capabilities, ranks: int) -> Capabilities:
    """Return capabilities for exactly so many ranks. Errors: ``AdapterError``."""
    most = claimed.shards.max_ranks
    if most is not None and ranks > most:
        raise AdapterError(f"{reference} runs on up to {most} ranks: --ranks {ranks} is more")
    return replace(claimed, shards=replace(claimed.shards, num_ranks=ranks))


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _at(place: str) -> str:
    return f" in {place}" if place else ""


def _ranks(numbers: Sequence[int]) -> str:
    named = _and([str(each) for each in numbers])
    return f"rank{'s' * (len(numbers) > 1)} {named}"


def _each(said: dict[int, Any]) -> str:
    return "; ".join(f"rank {rank} {words}" for rank, words in said.items())


def _raised(said: dict[int, Any]) -> str:
    """Return what ranks raised; several that raised the same are named together."""
    words = next(iter(said.values()))
    if len({*said.values()}) == 1:
        return f"{_ranks([*said])} raised {words}"
    return "; ".join(f"rank {rank} raised {words}" for rank, words in said.items())
