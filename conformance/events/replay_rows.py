"""Events of replays: which row of a record a token has, which layer it is of, how large it is."""

from __future__ import annotations

from collections.abc import Iterator
from math import lcm

import numpy as np

from moe_routing.conformance.calls.replay import ReplayCase
from moe_routing.conformance.events.registry import ROWS, event
from moe_routing.conformance.events.replay import fitting_record, replayed
from moe_routing.conformance.events.replay_facts import (
    in_other_rows,
    is_order,
    layers_differ,
    padded_before,
    swaps,
    unlike,
    would_choose_others,
)
from moe_routing.conformance.events.replay_records import (
    in_rows,
    layered,
    others,
    plain,
    widened,
)
from moe_routing.conformance.generators.construct import table_cases
from moe_routing.conformance.generators.replay import spaced
from moe_routing.conformance.judge.replay import ReplayFacts
from moe_routing.implementations import Capabilities
from moe_routing.reference import Recorded

replayed(
    "reordered",
    "tokens in another order than the record's",
    lambda f: is_order(f) and in_other_rows(f),
    lambda case: in_rows(case, np.roll(np.arange(case.num_tokens), 1)),
)
replayed(
    "order-of-three",
    "tokens in an order that is not its own inverse",
    lambda f: is_order(f) and not swaps(f) and in_other_rows(f),
    lambda case: in_rows(case, np.roll(np.arange(case.num_tokens), 1)),
)
replayed(
    "packed",
    "tokens that have some rows of a longer record",
    lambda f: (
        f.recorded.rows is not None
        and len(f.recorded.expert_ids) > len(f.recorded.rows)
        and in_other_rows(f)
    ),
    lambda case: in_rows(case, np.arange(case.num_tokens) + 1, case.num_tokens + 2),
)
replayed(
    "padded",
    "a token that has no row, before one that has, and rows that follow one another",
    padded_before,
    lambda case: in_rows(case, np.arange(case.num_tokens) - 1, max(case.num_tokens - 1, 1)),
)
replayed(
    "layers",
    "the first of several layers, which differ",
    lambda f: f.recorded.layer == 0 and layers_differ(f),
    lambda case: layered(case, 3, 0),
)
replayed(
    "later-layer",
    "a layer that is not the first and not the last, and differs from them",
    lambda f: 0 < (f.recorded.layer or 0) < f.recorded.num_layers - 1 and layers_differ(f),
    lambda case: layered(case, 3, 1),
)
replayed(
    "last-layer",
    "the last of several layers, which differ",
    lambda f: f.recorded.layer == f.recorded.num_layers - 1 > 0 and layers_differ(f),
    lambda case: layered(case, 2, 1),
)
replayed(
    "unrecorded",
    "a layer of which there is no record, and others whose routes it would not choose",
    would_choose_others,
    lambda case: layered(case, 2, None),
    free=True,
)
replayed(
    "strided",
    "a record whose tokens do not lie next to one another, several of them",
    lambda f: not f.recorded.expert_ids.flags.c_contiguous and f.recorded.num_tokens > 1,
    lambda case: Recorded(expert_ids=spaced(others(case)[:, None])),
)
replayed(
    "no-tokens",
    "no tokens",
    lambda f: f.inputs.num_tokens == 0,
    plain,
    logits=np.zeros((0, 4)),
)
replayed(
    "tokens-above-256",
    "more than 256 tokens, of which the last has other experts than would be chosen",
    lambda f: f.inputs.num_tokens > 256 and bool(unlike(f)[-1]),
    plain,
    logits=np.resize(np.array(ROWS), (257, 4)),
)


replayed(
    "layer-above-8",
    "the eleventh layer of a record, whose experts are not those of the first or the third",
    lambda f: f.recorded.layer == 10 and bool(f.bounds.judged.any()) and _unlike_earlier(f),
    lambda case: Recorded(
        expert_ids=np.stack([others(case, layer=n + n // 8) for n in range(11)], axis=1), layer=10
    ),
)


def _unlike_earlier(facts: ReplayFacts) -> bool:
    """Whether each earlier layer that a few bits might name has other experts."""
    ids = facts.recorded.expert_ids
    return all((ids[:, 10] != ids[:, n]).any() for n in (0, 2))


def _of_wide_ids(above: int) -> None:
    @event(
        f"replayed-id-above-{above}",
        f"a forced expert whose id is above {above}",
        lambda facts: (
            isinstance(facts, ReplayFacts)
            and bool((facts.ids > above).any())
            and bool(facts.bounds.judged.any())
        ),
    )
    def _(capabilities: Capabilities) -> Iterator[ReplayCase]:
        multiple = capabilities.limits.experts_multiple_of
        for case in table_cases(capabilities, np.resize(ROWS, (2, 8)), top_k=2):
            groups = case.config.groups
            step = multiple if groups is None else lcm(multiple, groups.count)
            wide = widened(case, -(-(above + 2) // step) * step)
            if capabilities.admits(wide.config, wide.inputs):
                yield from fitting_record(capabilities, wide, plain)


for _above in (255, 32_767):
    _of_wide_ids(_above)
