"""Clauses of the chapter on shards (docs/spec/shards.md)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from moe_routing.conformance.calls.shards import ShardsCase
from moe_routing.conformance.clauses.registry import Check, clause
from moe_routing.conformance.events import members
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.explain.shards import part_failure, shards_line, sum_failure
from moe_routing.conformance.generators.experts import TOKENS, Wishes
from moe_routing.conformance.generators.seeds import Seeded
from moe_routing.conformance.generators.shards import choose_shards_case
from moe_routing.conformance.trial.boundary import Malformed
from moe_routing.conformance.trial.call import Raised
from moe_routing.conformance.trial.shards import ShardsTrial
from moe_routing.implementations import Capabilities
from moe_routing.reference.formats import Bools

SEVERAL = (2, 3, 4, 5, 8)
_OFFERS = {"tokens": tuple(n for n in TOKENS if n), "experts": (2, 3, 4, 5, 8), "ranks": SEVERAL}


def _shards(
    name: str,
    why: str,
    *,
    weights: str = "positive",
    offers: dict[str, tuple[Any, ...]] | None = None,
    **parts: Any,
) -> Callable[[Check], Check]:
    wishes = Wishes(offers={**_OFFERS, **(offers or {})}, weights=weights)
    return clause(
        f"shards.{name}",
        "MUST",
        why=why,
        method="shard",
        strategy=lambda capabilities: _calls(capabilities, wishes),
        **parts,
    )


def _calls(capabilities: Capabilities, wishes: Wishes) -> Seeded[ShardsCase]:
    return Seeded(partial(choose_shards_case, capabilities=capabilities, wishes=wishes))


def _held(name: str, trial: ShardsTrial, tokens: Callable[[int], Bools]) -> Failure | None:
    """Return the failure of the first rank whose answer to one of these tokens is wrong."""
    for rank in trial.sharded.ranks:
        wrong = trial.wrong(rank) & tokens(rank)[:, None]
        if wrong.any():
            answer, due = trial.answers[rank], trial.part(rank).output
            return part_failure(name, trial.sharded, rank, answer, wrong, due)
    return None


def _summed(name: str, trial: ShardsTrial, tokens: Bools | None = None) -> Failure | None:
    """Return the failure of the sum over all ranks, at one of these tokens or of all."""
    sharded = trial.sharded
    wrong = ~sharded.layer.permits(trial.output)
    if tokens is not None:
        wrong = wrong & tokens[:, None]
    return sum_failure(name, sharded, trial.output, wrong) if wrong.any() else None


def _all(trial: ShardsTrial) -> Callable[[int], Bools]:
    return lambda rank: np.ones(trial.case.num_tokens, bool)


def _maps(capabilities: Capabilities) -> str | None:
    """Return what says that no placement but blocks in order is claimed."""
    found = capabilities.shards.placements
    return None if found == "mapped" else f"shards.placements={found!r} is not 'mapped'"


def _replicates(capabilities: Capabilities) -> str | None:
    found = _maps(capabilities)
    return found if capabilities.shards.replicas else "shards.replicas=False"


@_shards(
    "union",
    "A route that two ranks compute, or none, is an output that no single rank can see is wrong.",
    rules=("SHD-1", "SHD-2"),
    bugs=("M46", "M47", "M49", "M75"),
    events=("spread-several", "spread-uneven", "spread-last-rank", "spread-lone-expert"),
)
def union(trial: ShardsTrial) -> Failure | None:
    """Each rank answers what its own experts make of a token, and no others."""
    return _held("union", trial, _all(trial))


@_shards(
    "sum",
    "What the ranks answer is added up by whoever calls them, and is the layer's output.",
    rules=("SHD-1", "SHD-3"),
    bugs=("M47", "M49", "M75"),
    events=(
        *("spread-several", "spread-exact", "spread-zero-weight", "spread-uneven"),
        *members("spread-large"),
    ),
)
def sum_(trial: ShardsTrial) -> Failure | None:
    """The answers of all ranks add up to the output of the layer."""
    return _summed("sum", trial)


@_shards(
    "elsewhere-is-zero",
    "A row that a rank does not write holds what the memory held, and is added to the output.",
    rules=("SHD-4",),
    bugs=("M48",),
    events=("spread-several", "spread-skewed"),
    offers={"load": ("one", "two", "first", "last")},
)
def elsewhere_is_zero(trial: ShardsTrial) -> Failure | None:
    """A rank answers exactly 0 for a token none of whose experts it has."""
    sharded = trial.sharded
    return _held(
        "elsewhere-is-zero", trial, lambda r: np.asarray(~sharded.may_compute(r).any(axis=1))
    )


@_shards(
    "maps",
    "A map of experts to places that is applied twice, or not at all, runs the wrong experts.",
    rules=("SHD-5",),
    bugs=("M75",),
    events=("spread-moved",),
    offers={"placement": ("mapped",)},
    needs=_maps,
)
def maps(trial: ShardsTrial) -> Failure | None:
    """Wherever an expert lives, it is the one that the router named."""
    return _held("maps", trial, _all(trial)) if trial.sharded.moved else None


@_shards(
    "replicas",
    "A busy expert is put on several ranks to share its load, not to do its work twice.",
    rules=("SHD-6",),
    bugs=("M75",),
    events=("spread-replicas",),
    offers={"placement": ("mapped",)},
    needs=_replicates,
)
def replicas(trial: ShardsTrial) -> Failure | None:
    """A route to an expert that several ranks have is computed by exactly one of them."""
    ids, sharded = trial.case.inputs.expert_ids, trial.sharded
    replicated = (ids >= 0) & (sharded.placement.replicas[ids] > 1)
    several = np.asarray(replicated.any(axis=1))
    return _summed("replicas", trial, several)


@_shards(
    "one-rank",
    "One rank is how every sharded layer is first tried, and has a path of its own.",
    rules=("SHD-7",),
    bugs=("M49",),
    events=("spread-one-rank",),
    offers={"ranks": (1,)},
)
def one_rank(trial: ShardsTrial) -> Failure | None:
    """A single rank answers the whole output."""
    return _held("one-rank", trial, _all(trial)) if trial.case.inputs.num_ranks == 1 else None


@_shards(
    "skewed",
    "Buffers that are sized for an even load lose tokens, or hang, when one rank gets them all.",
    rules=("SHD-8",),
    bugs=("M41", "M49"),
    events=("spread-skewed",),
    offers={"load": ("one", "two"), "tokens": (5, 8, 17, 31, 33, 64), "experts": (4, 5, 8)},
)
def skewed(trial: ShardsTrial) -> Failure | None:
    """Where the experts of one rank get all routes, its answer is right."""
    if (trial.sharded.counts > 0).sum() > 1:
        return None
    return _held("skewed", trial, _all(trial))


@_shards(
    "idle-rank",
    "A rank without work still has to answer, and zeros: its peers wait for it.",
    rules=("SHD-9",),
    bugs=("M47", "M48", "M53"),
    events=("spread-idle-rank", "spread-rank-without-experts"),
    offers={"load": ("one", "two", "first", "last")},
)
def idle_rank(trial: ShardsTrial) -> Failure | None:
    """A rank without routes, or without experts, answers exactly 0."""
    idle = trial.sharded.counts == 0
    full = np.ones(trial.case.num_tokens, bool)
    return _held("idle-rank", trial, lambda rank: full & idle[rank])


@_shards(
    "absent",
    "A sentinel is on no rank: where it is looked up in a map, it is the last expert's rank.",
    rules=("SHD-10",),
    bugs=("M46", "M47"),
    events=("spread-absent",),
    offers={"absence": ("some", "tokens")},
    needs=lambda capabilities: (
        None if True in capabilities.computes.absent else "computes.absent has no True"
    ),
)
def absent(trial: ShardsTrial) -> Failure | None:
    """An absent route adds exactly 0 on every rank."""
    some = np.asarray((trial.case.inputs.expert_ids < 0).any(axis=1))
    return _held("absent", trial, lambda rank: some)


@_shards(
    "biases-once",
    "A bias that every rank adds is an offset times the number of ranks.",
    rules=("SHD-11",),
    bugs=("M63",),
    events=("spread-biases",),
    offers={"biases": (True,)},
    needs=lambda capabilities: (
        None if True in capabilities.computes.biases else "computes.biases has no True"
    ),
)
def biases_once(trial: ShardsTrial) -> Failure | None:
    """An expert's biases are added where it is computed, and nowhere else."""
    return _held("biases-once", trial, _all(trial)) if trial.case.inputs.has_biases else None


@_shards(
    "no-token",
    "A batch may be empty on every rank at once, at the end of a data set.",
    rules=("SHD-12",),
    bugs=("M53",),
    events=("spread-no-token",),
    offers={"tokens": (0,)},
    without_tokens=True,
)
def no_token(trial: ShardsTrial) -> Failure | None:
    """Without tokens every rank answers an empty array of H columns."""
    if trial.case.num_tokens:
        return None
    try:
        _ = trial.answers
    except (Raised, Malformed) as error:
        line = shards_line(trial.sharded)
        return Failure(stage="no-token", summary=f"without tokens: {error}", details=(line,))
    return None
