"""The canonical permutation: against brute force, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from routed import calls, routes_of

from moe_routing.reference import (
    Permutation,
    PermutationConfig,
    Routes,
    expert_of_row,
    offsets,
    permute,
    realign,
    row_of_route,
    tiles,
    token_of_row,
    weight_of_row,
)


def by_hand(config: PermutationConfig, routes: Routes) -> tuple[list[int], list[int], list[int]]:
    """The same, one route after the other."""
    rows: list[int] = []
    starts, counts = [0], []
    for expert in range(config.num_experts):
        slots = product(range(routes.num_tokens), range(routes.top_k))
        mine = [t * routes.top_k + k for t, k in slots if routes.expert_ids[t, k] == expert]
        rows += mine
        size = len(mine)
        while size % config.align or (not mine and size < config.empty_takes):
            size += 1
        rows += [-1] * (size - len(mine))
        starts.append(len(rows))
        counts.append(len(mine))
    return rows, starts, counts


@settings(max_examples=300, deadline=None)
@given(calls())
def test_it_is_what_one_gets_by_hand(call: tuple[PermutationConfig, Routes]) -> None:
    config, routes = call
    found = permute(config, routes)
    rows, starts, counts = by_hand(config, routes)
    assert found.rows.tolist() == rows
    assert found.starts.tolist() == starts
    assert found.counts.tolist() == counts
    experts = expert_of_row(found).tolist()
    assert experts == [e for e in range(config.num_experts) for _ in range(found.sizes[e])]
    k = routes.top_k
    assert token_of_row(found, k).tolist() == [r if r < 0 else r // k for r in rows]
    places = [rows.index(r) if r in rows else -1 for r in range(routes.num_routes)]
    assert row_of_route(found, routes.num_routes).tolist() == places
    flat = routes.weights.reshape(-1)
    assert weight_of_row(found, routes).tolist() == [0 if r < 0 else flat[r] for r in rows]


@settings(max_examples=100, deadline=None)
@given(calls(), st.sampled_from([1, 2, 4, 8]))
def test_offsets_and_tiles_are_what_one_gets_by_hand(
    call: tuple[PermutationConfig, Routes], height: int
) -> None:
    config, routes = call
    found = permute(config, routes)
    assert offsets(found, "ends").tolist() == found.starts[1:].tolist()
    assert offsets(found, "exclusive", block=config.align).tolist() == [
        start // config.align for start in found.starts[:-1]
    ]
    assert offsets(found, "ends", padded=False).tolist() == np.cumsum(found.counts).tolist()
    cut = tiles(found, height)
    due = [
        (e, first, min(max(first, int(found.starts[e] + found.counts[e])), first + height))
        for e in range(config.num_experts)
        for first in range(int(found.starts[e]), int(found.starts[e + 1]), height)
    ]
    assert [*zip(*(a.tolist() for a in vars(cut).values()), strict=True)] == due


@settings(max_examples=100, deadline=None)
@given(calls(), st.sampled_from([1, 2, 4, 8]))
def test_realigned_it_is_what_the_other_alignment_gives(
    call: tuple[PermutationConfig, Routes], align: int
) -> None:
    config, routes = call
    other = PermutationConfig(num_experts=config.num_experts, align=align)
    found, due = realign(permute(config, routes), other), permute(other, routes)
    assert found.rows.tolist() == due.rows.tolist()
    assert found.starts.tolist() == due.starts.tolist()


@pytest.mark.parametrize(
    ("experts", "align", "takes"), [*product((1, 2, 3), (1, 2, 4), (False, True))]
)
def test_the_most_rows_are_reached_and_not_exceeded(experts: int, align: int, takes: bool) -> None:
    config = PermutationConfig(num_experts=experts, align=align, empty_takes=align if takes else 0)
    for number in range(6):
        found = [
            permute(config, routes_of(np.reshape(ids, (number, 1)))).num_rows
            for ids in product(range(experts), repeat=number)
        ]
        assert max(found) == config.most_rows(number)


def test_no_token_and_no_present_route() -> None:
    config = PermutationConfig(num_experts=3, align=4, empty_takes=4)
    empty = permute(config, routes_of(np.zeros((0, 2))))
    assert (empty.rows.tolist(), empty.counts.tolist()) == ([-1] * 12, [0, 0, 0])
    absent = permute(PermutationConfig(num_experts=2), routes_of([[-1, -1]]))
    assert absent.starts.tolist() == [0, 0, 0]


ONE = PermutationConfig(num_experts=2)
FOUND = permute(ONE, routes_of([[0], [1], [0]]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Routes(expert_ids=[[0, -2]], weights=[[1, 1]]), r"expert_ids\[0, 1\]=-2: use ids"),
        (lambda: Routes(expert_ids=[[-1]], weights=[[0.5]]), r"weights\[0, 0\]=0.5: expert_ids is"),
        (lambda: Routes(expert_ids=[[0]], weights=[[1, 2]]), r"weights of shape \[T, K\]"),
        (lambda: Routes(expert_ids=[[0.5]], weights=[[1]]), "expert_ids to be an array of int64"),
        (lambda: PermutationConfig(num_experts=0), "num_experts >= 1 but got 0"),
        (lambda: PermutationConfig(num_experts=1, align=4, empty_takes=2), "align=4 but got 2"),
        (lambda: PermutationConfig(num_experts=1, order="any"), "order to be one of stable, free"),
        (lambda: permute(ONE, routes_of([[0, 2]])), r"expert_ids\[0, 1\]=2: ids are below"),
        (lambda: Permutation(rows=[0, 0], starts=[0, 2], counts=[2]), r"route 0 in rows \[0, 1\]"),
        (lambda: Permutation(rows=[0], starts=[0, 2], counts=[1]), "from 0 to R=1"),
        (lambda: Permutation(rows=[0], starts=[0, 2, 1], counts=[1, 0]), r"starts\[2\]=1 < "),
        (lambda: Permutation(rows=[0, -3], starts=[0, 2], counts=[1]), r"rows\[1\]=-3"),
        (lambda: Permutation(rows=[0, -1], starts=[0, 2], counts=[2]), r"counts\[0\]=2: 1 of its"),
        (
            lambda: Permutation(rows=[0], starts=[0, 1], counts=[1, 0]),
            r"starts of shape \[E \+ 1\]",
        ),
        (lambda: offsets(FOUND, block=2), "offset 3 is no multiple of it; realign"),
        (lambda: offsets(FOUND, "first"), "convention to be one of ends, starts, exclusive"),
        (lambda: row_of_route(FOUND, 2), "num_routes=2: a row holds route 2"),
        (lambda: realign(FOUND, PermutationConfig(num_experts=3)), "num_experts=3 for a perm"),
        (lambda: tiles(FOUND, 0), "height >= 1 but got 0"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        make()
    assert "\n" not in str(refused.value)


def test_arrays_are_read_only() -> None:
    for array in (FOUND.rows, FOUND.starts, FOUND.counts, *routes_of([[0]]).arrays().values()):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
