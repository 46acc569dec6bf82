"""What has become of ranks that did not all answer a call, as the error that says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moe_routing.implementations.protocol import BackendLost, BackendMissing
from moe_routing.implementations.ranks.group import Round


def failure(heard: Round, places: dict[int, str], seconds: float) -> Exception:
    """Return the error for a round, with the places in which ranks that said nothing waited."""
    if missing := heard.of("missing"):
        return BackendMissing(next(iter(missing.values())))
    if died := heard.of("died"):
        return BackendLost(f"{_each(died)}{_rest(heard, places)}", "crash", costly=True)
    if raised := heard.of("raised"):
        return BackendLost(f"{_raised(raised)}{_rest(heard, places)}", costly=True)
    if heard.late:
        return BackendLost(
            f"no answer from {_waiting(heard, places, seconds)}", "timeout", costly=True
        )
    refused = heard.of("refused")
    return BackendLost(f"{_ranks([*refused])} refused a call that others answered")


def _rest(heard: Round, places: dict[int, str]) -> str:
    """Return where the ranks are that were left waiting."""
    silent = [f"rank {r}{_at(places.get(r, ''))}" for r in heard.silent]
    return f"; no answer from {_and(silent)}" if silent else ""


def _waiting(heard: Round, places: dict[int, str], seconds: float) -> str:
    named = [f"rank {rank}{_at(places.get(rank, ''))}" for rank in heard.silent]
    done = [rank for rank in range(heard.size) if rank not in heard.silent]
    answered = f"; {_ranks(done)} had answered" if done else ""
    return f"{_and(named)} after {seconds:g} s{answered}"


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
