"""Expanded claims: what one claim says of one expert and of more, as a claim each."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from moe_routing.implementations.claims import Claim
from moe_routing.implementations.from_two import FromTwo
from moe_routing.implementations.limits import Limits
from moe_routing.implementations.permitted import AnyValue


def expanded(claims: Iterable[Claim], limits: Limits) -> Iterator[Claim]:
    """Yield claims, each with ``FromTwo`` as those of one and of more experts within ``limits``."""
    for claim in claims:
        rules = () if isinstance(claim.renormalize, AnyValue) else claim.renormalize
        if not any(isinstance(each, FromTwo) for each in rules):
            yield claim
            continue
        grouped = None not in claim.groups
        alone = [None if isinstance(each, FromTwo) else each for each in rules]
        several = [each.rule if isinstance(each, FromTwo) else each for each in rules]
        for top_k, chosen in ((_only_one(claim.top_k), alone), (_from_two(claim.top_k), several)):
            if top_k and limits.has_room(top_k, grouped=grouped):
                yield replace(claim, top_k=top_k, renormalize=tuple(dict.fromkeys(chosen)))


def _only_one(top_k: Any) -> tuple[int, ...]:
    return (1,) if 1 in top_k else ()


def _from_two(top_k: Any) -> tuple[int, ...] | range:
    if isinstance(top_k, AnyValue):
        return range(2, sys.maxsize)
    if isinstance(top_k, range):
        return top_k[1:] if top_k.start == 1 else top_k
    return tuple(k for k in top_k if k > 1)
