"""Clauses of the chapter on shards about ranks that run at once (docs/spec/shards.md)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from moe_routing.conformance.calls.ranks import RankGradientCase, RanksCase
from moe_routing.conformance.clauses.registry import Check, clause
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.explain.ranks import answer_failure, rank_gradient_failure
from moe_routing.conformance.explain.shards import shards_line
from moe_routing.conformance.generators.experts import TOKENS, Wishes
from moe_routing.conformance.generators.ranks import (
    choose_rank_gradient_case,
    choose_ranks_case,
)
from moe_routing.conformance.generators.seeds import Seeded
from moe_routing.conformance.trial.boundary import Malformed
from moe_routing.conformance.trial.call import Raised
from moe_routing.conformance.trial.ranks import RankGradientsTrial, RanksTrial
from moe_routing.implementations import Capabilities
from moe_routing.reference.formats import Bools

FEW = 25
"""The cases that are drawn for each clause: a call of all ranks costs milliseconds."""

_OFFERS = {
    "tokens": tuple(n for n in TOKENS if n),
    "experts": (2, 3, 4, 5, 8),
    "ranks": (2, 3, 4, 5, 8),
}
_OF_TOKENS = ("hidden", "weights")


def _on_ranks(
    name: str,
    why: str,
    *,
    poison: str = "",
    offers: dict[str, tuple[Any, ...]] | None = None,
    **parts: Any,
) -> Callable[[Check], Check]:
    wishes = Wishes(offers={**_OFFERS, **(offers or {})}, poison=poison)
    given = {"method": "on_ranks", "strategy": partial(_calls, wishes), "most": FEW, **parts}
    return clause(f"shards.{name}", "MUST", why=why, **given)


def _calls(wishes: Wishes, capabilities: Capabilities) -> Seeded[RanksCase]:
    return Seeded(partial(choose_ranks_case, capabilities=capabilities, wishes=wishes))


def _gradient_calls(capabilities: Capabilities) -> Seeded[RankGradientCase]:
    wishes = Wishes(offers=_OFFERS)
    return Seeded(partial(choose_rank_gradient_case, capabilities=capabilities, wishes=wishes))


def _held(name: str, trial: RanksTrial, tokens: Bools | None = None) -> Failure | None:
    """Return the failure of the first rank whose answer to one of these tokens is wrong."""
    together = trial.together
    for rank in together.ranks:
        wrong = trial.wrong(rank)
        if tokens is not None:
            wrong = wrong & tokens[:, None]
        if wrong.any():
            return answer_failure(name, together, rank, trial.answers[rank], wrong)
    return None


def _own(capabilities: Capabilities) -> str | None:
    """Return what says that ranks have the same tokens, or as many."""
    found = capabilities.shards.batches
    return None if found == "any" else f"shards.batches={found!r} is not 'any'"


def _maps(capabilities: Capabilities) -> str | None:
    found = capabilities.shards.placements
    return None if found == "mapped" else f"shards.placements={found!r} is not 'mapped'"


def _replicates(capabilities: Capabilities) -> str | None:
    found = _maps(capabilities)
    return found if capabilities.shards.replicas else "shards.replicas=False"


def _absent(capabilities: Capabilities) -> str | None:
    return None if True in capabilities.computes.absent else "computes.absent has no True"


@_on_ranks(
    "on-ranks",
    "A token whose experts live elsewhere goes there and comes back: each rank sees only its part, "
    "and what is lost on the way is on no rank's log.",
    rules=("SHD-13",),
    bugs=("M41", "M46", "M49", "M75"),
    events=(
        *("ranked-several", "ranked-remainder", "ranked-exact", "ranked-large:130-columns"),
        *("ranked-large:300-tokens", "ranked-large:70-experts"),
    ),
)
def on_ranks(trial: RanksTrial) -> Failure | None:
    """Each rank answers the output of the layer for its own tokens."""
    return _held("on-ranks", trial)


@_on_ranks(
    "uneven-batches",
    "The last batch of an epoch is shorter on one rank than on the others.",
    rules=("SHD-14",),
    bugs=("M49",),
    events=("ranked-uneven",),
    offers={"spread": ("uneven",)},
    needs=_own,
)
def uneven_batches(trial: RanksTrial) -> Failure | None:
    """How many tokens a rank has, and how many the others, does not matter."""
    return _held("uneven-batches", trial) if np.ptp(trial.together.batches) else None


@_on_ranks(
    "idle-batch",
    "A rank whose batch is empty still has experts: where it stays away from the collective, the "
    "others wait for it, or their tokens are lost.",
    rules=("SHD-15",),
    bugs=("M48", "M49", "M53"),
    events=("ranked-last-idle", "ranked-first-idle"),
    offers={"spread": ("idle", "one")},
    needs=_own,
)
def idle_batch(trial: RanksTrial) -> Failure | None:
    """A rank without tokens runs its experts for those of the others, and answers none."""
    return _held("idle-batch", trial) if (trial.together.batches == 0).any() else None


@_on_ranks(
    "skewed-batches",
    "Buffers are sized for an even load, until every rank sends all that it has to one.",
    rules=("SHD-16",),
    bugs=("M49",),
    events=("ranked-skewed",),
    offers={"load": ("one", "two", "first", "last")},
)
def skewed_batches(trial: RanksTrial) -> Failure | None:
    """The tokens of all ranks may go to the experts of one."""
    together = trial.together
    skewed = (together.counts > 0).sum() == 1 and together.placement.num_ranks > 1
    return _held("skewed-batches", trial) if skewed else None


@_on_ranks(
    "maps-on-ranks",
    "A map of experts to ranks that one rank reads otherwise than another sends tokens where "
    "nobody expects them.",
    rules=("SHD-17",),
    bugs=("M75",),
    events=("ranked-moved",),
    offers={"placement": ("mapped",)},
    needs=_maps,
)
def maps_on_ranks(trial: RanksTrial) -> Failure | None:
    """Wherever an expert lives, its tokens find it, from every rank."""
    return _held("maps-on-ranks", trial) if trial.together.moved else None


@_on_ranks(
    "replicas-on-ranks",
    "Two replicas that both answer a token are two experts where the router named one.",
    rules=("SHD-18",),
    bugs=("M75",),
    events=("ranked-replicas",),
    offers={"placement": ("mapped",)},
    needs=_replicates,
)
def replicas_on_ranks(trial: RanksTrial) -> Failure | None:
    """A route to an expert that several ranks have is answered once."""
    ids, replicas = trial.case.inputs.expert_ids, trial.together.placement.replicas
    several = (ids >= 0) & (replicas[ids] > 1)
    return _held("replicas-on-ranks", trial, np.asarray(several.any(axis=1)))


@_on_ranks(
    "absent-on-ranks",
    "A sentinel goes to no rank: divided by the experts of a rank, it is the last or none.",
    rules=("SHD-19",),
    bugs=("M46", "M47"),
    events=("ranked-absent",),
    offers={"absence": ("some", "tokens")},
    poison="inf",
    needs=_absent,
)
def absent_on_ranks(trial: RanksTrial) -> Failure | None:
    """An absent route is sent nowhere, and adds exactly 0."""
    some = (trial.case.inputs.expert_ids < 0).any(axis=1)
    return _held("absent-on-ranks", trial, np.asarray(some))


@_on_ranks(
    "no-batch",
    "All ranks may be out of tokens at once, and a collective of nothing is still one.",
    rules=("SHD-20",),
    bugs=("M53",),
    events=("ranked-no-token",),
    offers={"tokens": (0,)},
    without_tokens=True,
)
def no_batch(trial: RanksTrial) -> Failure | None:
    """Where no rank has tokens, each answers an empty array of H columns."""
    if trial.case.num_tokens:
        return None
    try:
        _ = trial.answers
    except (Raised, Malformed) as error:
        line = shards_line(trial.together)
        return Failure(stage="no-batch", summary=f"without tokens: {error}", details=(line,))
    return None


@clause(
    "shards.gradients",
    "MUST",
    why="An expert that learns from its own rank's tokens alone, or from all of them once a rank, "
    "trains to something else than the layer that was written.",
    rules=("SHD-21", "SHD-22"),
    bugs=("M86", "M49"),
    events=(
        "ranked-learned-away",
        "ranked-learned-several",
        "ranked-learned-idle",
        "ranked-learned-unchosen",
        "ranked-learned-replicas",
        "ranked-large:learned-130-columns",
    ),
    method="gradients_on_ranks",
    strategy=_gradient_calls,
    most=FEW,
)
def gradients(trial: RankGradientsTrial) -> Failure | None:
    """The gradients of all ranks together are those of the whole layer."""
    together = trial.together
    if together.shared:
        for rank in together.ranks:
            for each in trial.of_rank(rank).values():
                if each.wrong.any():
                    return rank_gradient_failure("gradients", together, each, each.wrong, rank)
    for each in trial.judged.values():
        if each.wrong.any():
            return rank_gradient_failure("gradients", together, each, each.wrong)
    return None
