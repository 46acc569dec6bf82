"""What a backend with a method ``shard`` claims of it, and how one with ``experts`` gets it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from moe_routing.implementations.computes import EXPERTS_AXES
from moe_routing.implementations.permitted import Closed
from moe_routing.implementations.unsupported import Unsupported
from moe_routing.reference import ExpertsConfig, ExpertsInputs, Placement, local_call
from moe_routing.reference.checks import require_choice, require_count, require_flag
from moe_routing.reference.formats import Ids

PLACEMENTS = ("even", "blocks", "mapped")
"""The kinds of placement, each of which holds those before it."""

BATCHES = ("shared", "even", "any")
"""What tokens the ranks may have, where each is a process: all the same, as many, or any."""

SHARDS_AXES: dict[str, Callable[[Any], bool]] = {
    **EXPERTS_AXES,
    "elsewhere": lambda inputs: _elsewhere(inputs),
}
"""What a region of a known divergence may name of calls of shards, and how it is read."""


def _local_counts(placement: Placement) -> Ids:
    """Return how many experts each rank has, ``[R]``."""
    return np.bincount(placement.rank_of, minlength=placement.num_ranks)


def _elsewhere(inputs: Any) -> bool:
    """Return whether some rank that has experts is given a route to none of them."""
    several = bool((_local_counts(inputs.placement) > 0).sum() > 1)
    return bool((inputs.expert_ids < 0).any()) or (several and inputs.expert_ids.size > 0)


def placed(placement: Placement) -> str:
    """Return what a placement is, of ``PLACEMENTS``."""
    if (np.diff(placement.rank_of) < 0).any() or (np.diff(placement.logical_of) != 1).any():
        return "mapped"
    sizes = _local_counts(placement)
    return "even" if (sizes == sizes[0]).all() else "blocks"


@dataclass(frozen=True, kw_only=True)
class Shards(Closed):
    """The placements under which a backend runs a rank's experts; without arguments all of them.

    ``placements`` says how far they go: ``even`` (experts in order, as many on each rank),
    ``blocks`` (in order, in blocks of any sizes, some of them empty) or ``mapped`` (anywhere).
    ``replicas`` says whether an expert may be on several ranks, which is ``mapped`` as well;
    ``max_ranks`` is the greatest number of ranks, and ``num_ranks`` the only one. ``batches`` is
    about ``on_rank`` and ``on_ranks`` alone: ``shared`` (every rank has the same tokens), ``even``
    (its own, as many on each) or ``any`` (its own, or none). What the experts compute is claimed
    by ``computes``. Errors: ``ValueError`` naming the field.
    """

    placements: str = PLACEMENTS[-1]
    replicas: bool = True
    max_ranks: int | None = None
    num_ranks: int | None = None
    batches: str = BATCHES[-1]

    def __post_init__(self) -> None:
        require_choice("Shards.placements", self.placements, PLACEMENTS)
        require_flag("Shards.replicas", self.replicas)
        require_choice("Shards.batches", self.batches, BATCHES)
        for name in ("max_ranks", "num_ranks"):
            if getattr(self, name) is not None:
                require_count(f"Shards.{name}", getattr(self, name), at_least=1)

    def refusals(self, placement: Placement) -> list[str]:
        """Return what is not claimed of a placement, one phrase each; empty: claimed."""
        kind, replicas = placed(placement), bool((placement.replicas > 1).any())
        beyond = PLACEMENTS.index(kind) > PLACEMENTS.index(self.placements)
        found = [f"placement={kind!r}"] * beyond
        found += ["replicas=True"] * (replicas and not self.replicas)
        most = self.max_ranks
        if most is not None and placement.num_ranks > most:
            found.append(f"num_ranks={placement.num_ranks} > {most}")
        if self.num_ranks is not None and placement.num_ranks != self.num_ranks:
            found.append(f"num_ranks={placement.num_ranks} is not {self.num_ranks}")
        return found

    def batch_refusals(self, sizes: Sequence[int], *, shared: bool) -> list[str]:
        """Return what is not claimed of the numbers of tokens of the ranks, one phrase each."""
        if not any(sizes):
            return []
        if shared or self.batches == "shared":
            return [] if shared and self.batches == "shared" else [f"batches={self.batches!r}"]
        uneven = self.batches == "even" and len({*sizes}) > 1
        return [f"batches of {', '.join(map(str, sizes))} tokens"] * uneven

    def require(self, placement: Placement) -> None:
        """Raise ``Unsupported`` for a placement that is not claimed, saying why not."""
        if refused := self.refusals(placement):
            raise Unsupported(f"not claimed: {', '.join(refused)}")


class _RunsExperts(Protocol):
    def experts(self, config: ExpertsConfig, inputs: ExpertsInputs) -> Any: ...


def shard_of_experts(
    self: _RunsExperts,
    config: ExpertsConfig,
    inputs: ExpertsInputs,
    placement: Placement,
    rank: int,
) -> Any:
    """Return the part of a rank: its own experts, where routes of other ranks are absent.

    ``shard = shard_of_experts`` gives a backend with ``experts`` the method ``shard``. Errors:
    those of ``experts``.
    """
    call = local_call(config, inputs, placement, rank)
    return np.zeros_like(inputs.hidden) if call is None else self.experts(*call)
