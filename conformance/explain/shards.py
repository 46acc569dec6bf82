"""Why a rank's part of an output is wrong, in words: the rank, the token, its experts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from moe_routing.conformance.explain.experts import added, call_line
from moe_routing.conformance.explain.failure import Failure, at
from moe_routing.conformance.explain.numbers import listed, show, span
from moe_routing.conformance.judge.balls import Ball
from moe_routing.conformance.judge.shards import Sharded
from moe_routing.reference.formats import Bools, Floats

_SHOWN = 8
"""The slots of a token that are shown."""


def part_failure(
    clause: str, sharded: Sharded, rank: int, answer: Floats, wrong: Bools, due: Ball
) -> Failure:
    """Return the failure at the first of a rank's answers that are ``wrong [T, H]``."""
    t, h = (int(i) for i in np.argwhere(wrong)[0])
    named = f"rank {rank}: {at('output', t, h)}"
    return wrong_failure(clause, sharded, (t, h), f"{named}={show(answer[t, h])}", due)


def sum_failure(clause: str, sharded: Sharded, output: Floats, wrong: Bools) -> Failure:
    """Return the failure at the first of the sums over all ranks that are ``wrong [T, H]``."""
    t, h = (int(i) for i in np.argwhere(wrong)[0])
    named = f"the sum of all ranks: {at('output', t, h)}"
    return wrong_failure(clause, sharded, (t, h), f"{named}={show(output[t, h])}", sharded.sum)


def wrong_failure(
    clause: str, sharded: Sharded, place: tuple[int, int], found: str, due: Ball
) -> Failure:
    """Return the failure at a token and a column, of what was ``found`` and what is ``due``."""
    mid, rad = float(due.mid[place]), float(due.rad[place])
    permitted = f"exactly {show(mid)}" if rad == 0.0 else f"in {span((mid - rad, mid + rad))}"
    return Failure(
        stage=clause,
        token=place[0],
        summary=f"{found}, but should be {permitted}",
        details=(shards_line(sharded), *placed_lines(sharded), *slot_lines(sharded, *place)),
    )


def shards_line(sharded: Sharded) -> str:
    """Return the sizes of a call, what its experts compute, and the number of ranks."""
    return f"{call_line(sharded.layer)}; {sharded.placement.num_ranks} ranks"


def placed_lines(sharded: Sharded) -> Iterator[str]:
    """Yield a line for each rank: the experts that it has."""
    for rank in list(sharded.ranks)[:_SHOWN]:
        local = sharded.placement.local(rank).tolist()
        yield f"rank {rank:<4} experts {listed(local) if local else 'none'}"
    if len(sharded.ranks) > _SHOWN:
        yield f"and {len(sharded.ranks) - _SHOWN} more ranks"


def slot_lines(sharded: Sharded, t: int, h: int) -> Iterator[str]:
    """Yield a line for each slot of the token: its expert, where that is, and what it adds."""
    inputs, placement = sharded.inputs, sharded.placement
    yield f"token {t:<4}  slot  expert  on rank     weight   adds to [{h}]"
    for k in range(min(inputs.top_k, _SHOWN)):
        expert, weight = int(inputs.expert_ids[t, k]), float(inputs.weights[t, k])
        if expert < 0:
            yield f"{'':12}{k:>4}  absent"
            continue
        homes = placement.rank_of[placement.logical_of == expert].tolist()
        where = " or ".join(str(each) for each in homes)
        adds = show(added(sharded.layer, t, k, h))
        yield f"{'':12}{k:>4}  {expert:>6}  {where:>7}  {show(weight):>9}   {adds}"
    if inputs.top_k > _SHOWN:
        yield f"{'':12}and {inputs.top_k - _SHOWN} more slots"
