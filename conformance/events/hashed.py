"""Events of hash routing: what a table holds, and what it is combined with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.registry import ROWS, event
from moe_routing.conformance.events.sizes import ladder
from moe_routing.conformance.events.weights import experts_scaled_apart
from moe_routing.conformance.generators.construct import Arrays, table_cases
from moe_routing.conformance.judge import Bounds
from moe_routing.implementations import Capabilities

_LARGE_VOCABULARY = 2**16 + 2


@event(
    "table-repeats-an-expert",
    "a row of an expert table that names one expert twice",
    lambda b: (
        b.inputs.expert_table is not None
        and bool((np.diff(np.sort(b.reference.expert_ids, axis=1), axis=1) == 0).any())
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from _hashed(capabilities, [[1, 1], [0, 2]])


def _hashed(
    capabilities: Capabilities, table: list[list[int]], scales: Sequence[float] | None = None
) -> Iterator[Case]:
    """Yield a call of three tokens, of which the first and the last are the same."""
    arrays: Arrays = {"expert_table": table, "token_ids": [0, 1, 0]}
    if scales is not None:
        arrays["per_expert_scale"] = scales
    yield from table_cases(capabilities, ROWS, top_k=len(table[0]), **arrays)


@event(
    "hashed-and-scaled",
    "a table assigns experts with scales of their own, one of them negative",
    lambda b: b.inputs.expert_table is not None and experts_scaled_apart(b),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    scales = [0.5, 2.0, -1.0, -1.5]
    yield from _hashed(capabilities, [[3, 1], [0, 2]], scales)
    yield from _hashed(capabilities, [[3], [0]], scales)


def _looks_beyond(bounds: Bounds) -> bool:
    """Return whether a token id is past 16 bits, and its row is not that of its low 16 bits."""
    table, tokens = bounds.inputs.expert_table, bounds.inputs.token_ids
    if table is None or tokens is None or not (tokens >= 2**16).any():
        return False
    return bool((table[tokens] != table[tokens % 2**16]).any())


@event("token-id-above-65535", "a token id above 65,535 finds other experts", _looks_beyond)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for top_k in (2, 1):
        table = np.zeros((_LARGE_VOCABULARY, top_k), np.int64) + np.arange(top_k)
        table[2**16 :] += 2
        yield from table_cases(
            capabilities,
            ROWS,
            top_k=top_k,
            expert_table=table,
            token_ids=[0, _LARGE_VOCABULARY - 1, 2**16],
        )


_VOCABULARY = 2**18
"""The largest vocabulary of a shipped model: 262,144 tokens."""


def _looks_far_beyond(bounds: Bounds) -> bool:
    """Return whether ids above 100,000 find rows that those of their low bits do not hold."""
    table, tokens = bounds.inputs.expert_table, bounds.inputs.token_ids
    if table is None or tokens is None or tokens.size == 0 or tokens.max() < 2**17:
        return False
    far = tokens[tokens > 100_000]
    return all((table[far] != table[far % 2**bits]).any() for bits in (15, 16, 17))


@event(
    "token-id-above-100000",
    "token ids above 100,000, up to 262,143, find other experts",
    _looks_far_beyond,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    tokens = np.append(np.arange(100_003, _VOCABULARY, 18_013), _VOCABULARY - 1)
    for top_k in (2, 1):
        first = np.random.default_rng(0).integers(0, 4, _VOCABULARY)
        yield from table_cases(
            capabilities,
            ladder(len(tokens), 4),
            top_k=top_k,
            expert_table=(first[:, None] + np.arange(top_k)) % 4,
            token_ids=tokens,
        )
