"""Why drops are wrong, in words: the call, the token, the load of its expert."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.explain.numbers import listed, show
from moe_routing.conformance.judge.capacity import Demand, Dropped, Miss
from moe_routing.reference.checks import counted


def capacity_failure(law: str, demand: Demand, answer: Dropped, miss: Miss) -> Failure:
    """Return the failure of one law at one place, with its story."""
    details = tuple(_story(demand, answer, miss))
    return Failure(stage=law, token=miss.token, summary=miss.words, details=details)


def call_line(demand: Demand) -> str:
    """Return the sizes of a call, and its rule."""
    routes, config = demand.routes, demand.config
    least, most = demand.room
    share = {"routes": "T*K/E", "tokens": "T/E", "one": "1"}[config.share]
    room = f"{least}" if least == most else f"{least} or {most}, as it is rounded"
    rule = f"{config.factor:g} * {share}, rounded {config.rounding}, at least {config.minimum}"
    return (
        f"T={routes.num_tokens} (E={config.num_experts} K={routes.top_k}): capacity {room} "
        f"({rule}), by {config.order}, survivors {config.survivors}"
    )


def _story(demand: Demand, answer: Dropped, miss: Miss) -> Iterator[str]:
    yield call_line(demand)
    if miss.token is not None:
        yield from _slots(demand, answer, miss.token)
    if miss.expert is not None:
        yield from _expert(demand, answer, miss.expert)


def _slots(demand: Demand, answer: Dropped, token: int) -> Iterator[str]:
    """Yield the slots of a token: expert, weight, and what became of them."""
    yield f"token {token:<4}{'slot':>5} {'expert':>7} {'weight':>14}   answered"
    for k, expert in enumerate(demand.routes.expert_ids[token]):
        kept = f"kept, weight {show(answer.weights[token, k])}"
        became = kept if answer.kept[token, k] else "dropped"
        if not demand.present[token, k]:
            became = "absent"
        weight = show(demand.routes.weights[token, k])
        yield f"{'':10}{k:>5} {expert:>7} {weight:>14}   {became}"


def _expert(demand: Demand, answer: Dropped, expert: int) -> Iterator[str]:
    """Yield the tokens that an expert keeps, and those that it drops."""
    its = demand.present & (demand.routes.expert_ids == expert)
    kept, lost = (np.argwhere(its & which)[:, 0].tolist() for which in (answer.kept, ~answer.kept))
    routes = counted(len(kept) + len(lost), "route")
    yield f"expert {expert:<3}{routes}: keeps {len(kept)}, drops {len(lost)}"
    yield f"{'':10}keeps tokens {listed(kept)}"
    yield f"{'':10}drops tokens {listed(lost)}"
