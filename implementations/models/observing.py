"""One call of a block as values that a judge reads, or why a part of it is not judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from moe_routing.implementations.models.arrays import CannotRead
from moe_routing.implementations.models.experts import NotKnown
from moe_routing.implementations.models.heard import Heard
from moe_routing.implementations.models.see_experts import (
    see_experts,
    see_matrix_gradients,
    see_token_gradients,
)
from moe_routing.implementations.models.see_layer import see_layer
from moe_routing.implementations.models.see_routing import see_routing
from moe_routing.implementations.models.seen import Part, Seen, Unjudged

_MAKERS: tuple[tuple[Part, Callable[[Heard], Seen]], ...] = (
    ("routing", see_routing),
    ("experts", see_experts),
    ("layer", see_layer),
    ("experts gradients", see_token_gradients),
    ("experts gradients", see_matrix_gradients),
)
"""What is seen of a call, part by part; a routing comes with the gradients of its router."""


def seen_of(heard: Heard) -> Iterator[Seen | Unjudged]:
    """Yield each part of a call."""
    site = heard.call.site
    paths = {"routing": site.router_path, "layer": site.path}
    said = set[tuple[Part, str]]()
    for part, make in _MAKERS:
        try:
            heard.check(part)
            yield make(heard)
        except (CannotRead, NotKnown, ValueError) as error:
            path, words = paths.get(part, site.experts_path), " ".join(str(error).split())
            if (part, words) not in said:
                yield Unjudged(path=path, block=site.path, part=part, reason=words)
            said.add((part, words))
