"""Why an answer of a rank is wrong, in words: the rank, its token, the token's experts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from moe_routing.conformance.explain.expert_gradients import expert_gradient_failure
from moe_routing.conformance.explain.failure import Failure, at
from moe_routing.conformance.explain.numbers import listed, show
from moe_routing.conformance.explain.shards import placed_lines, slot_lines, wrong_failure
from moe_routing.conformance.judge.gradients import Judged
from moe_routing.conformance.judge.ranks import Together
from moe_routing.reference.experts import OF_EXPERTS
from moe_routing.reference.formats import Bools, Floats


def answer_failure(
    clause: str, together: Together, rank: int, answer: Floats, wrong: Bools
) -> Failure:
    """Return the failure at the first of a rank's answers that are ``wrong``, of all ``[T, H]``."""
    t, h = (int(i) for i in np.argwhere(wrong)[0])
    row = int(together.own(rank)[:t].sum())
    found = f"rank {rank}: {at('output', row, h)}={show(answer[row, h])}"
    failure = wrong_failure(clause, together, (t, h), found, together.sum)
    return replace(
        failure, details=(*failure.details[:1], *_batches(together), *failure.details[1:])
    )


def rank_gradient_failure(
    clause: str, together: Together, judged: Judged, wrong: Bools, rank: int | None = None
) -> Failure:
    """Return the failure at the first number of a gradient that is ``wrong``, of all ranks'.

    ``rank`` is the one that answered it, where all have the same tokens.
    """
    failure = expert_gradient_failure(clause, together.learning, judged, wrong)
    first = int(np.argwhere(wrong)[0][0])
    who = f"rank {rank}" if rank is not None else _owner(together, judged.name, first)
    lines = (*_batches(together), *placed_lines(together))
    if judged.name not in OF_EXPERTS:
        lines = (*lines, *slot_lines(together, first, 0))
    head, *rest = failure.details
    summary = f"{who}: {failure.summary}"
    return replace(failure, summary=summary, details=(head, *lines, *rest))


def _owner(together: Together, name: str, first: int) -> str:
    """Return who has what a gradient is of: the rank of a token, or the ranks of an expert."""
    if name not in OF_EXPERTS:
        home = int(together.home[first])
        return f"rank {home}, its token {int(together.own(home)[:first].sum())}"
    homes = [rank for rank in together.ranks if together.placement.holds(rank)[first]]
    if len(homes) == 1:
        return f"rank {homes[0]}, expert {first}"
    return f"the sum of ranks {listed(homes)}, expert {first}"


def _batches(together: Together) -> Iterator[str]:
    if together.shared:
        yield "tokens  the same on every rank"
        return
    yield f"tokens  {listed(together.batches.tolist())} on the ranks, in order"
