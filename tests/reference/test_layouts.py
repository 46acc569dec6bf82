"""The four layouts: from each to each and back, and read from what libraries return."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from routed import calls, routes_of

from moe_routing.reference import (
    AlignedBlocks,
    Permutation,
    PermutationConfig,
    Routes,
    RowOfRoute,
    SortedRoutes,
    SortedTokens,
    as_aligned_blocks,
    as_row_of_route,
    as_sorted_routes,
    as_sorted_tokens,
    permutation_of,
    permute,
    realign,
    weight_of_row,
)

Write = Callable[[Permutation, Routes, int], Any]

WAYS: dict[str, Write] = {
    "ends": lambda p, r, align: as_sorted_routes(p, r),
    "starts": lambda p, r, align: as_sorted_routes(p, r, convention="starts"),
    "tokens": lambda p, r, align: as_sorted_tokens(_unpadded(p), r),
    "blocks": lambda p, r, align: as_aligned_blocks(p, r, block=align),
    "blocks marked by -1": lambda p, r, align: as_aligned_blocks(p, r, block=align, padding=-1),
    "rows": lambda p, r, align: as_row_of_route(p, r),
    "tiles": lambda p, r, align: as_row_of_route(p, r, tile=align),
}


def _unpadded(permutation: Permutation) -> Permutation:
    return realign(permutation, PermutationConfig(num_experts=permutation.num_experts))


def same(one: Permutation, other: Permutation) -> bool:
    return all(
        np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True)
    )


FOUR = (("ends", "starts"), ("tokens",), ("blocks", "blocks marked by -1"), ("rows", "tiles"))


@settings(max_examples=300, deadline=None)
@given(calls(), st.tuples(*map(st.sampled_from, FOUR)))
def test_from_each_layout_to_each_other_and_back(
    call: tuple[PermutationConfig, Routes], ways: tuple[str, ...]
) -> None:
    config, routes = call
    whole, experts, align = permute(config, routes), config.num_experts, config.align
    for one in ways:
        there = permutation_of(WAYS[one](whole, routes, align), routes, experts)
        for other in ways:
            back = WAYS[other](realign(there, config), routes, align)
            due = _unpadded(whole) if other == "tokens" else whole
            assert same(permutation_of(back, routes, experts), due), f"{one} to {other}"


@settings(max_examples=100, deadline=None)
@given(calls(), st.integers(0, 2**32 - 1))
def test_a_free_order_is_kept(call: tuple[PermutationConfig, Routes], seed: int) -> None:
    config, routes = call
    rows, rng = permute(config, routes).rows.copy(), np.random.default_rng(seed)
    stable = permute(config, routes)
    for start, count in zip(stable.starts[:-1], stable.counts, strict=True):
        rng.shuffle(rows[start : start + count])
    free = Permutation(rows=rows, starts=stable.starts, counts=stable.counts)
    for name in ("ends", "blocks", "rows", "tiles"):
        layout = WAYS[name](free, routes, config.align)
        assert same(permutation_of(layout, routes, config.num_experts), free), name


TWO = routes_of([[1, 0], [1, -1], [0, 1]])
DUE = permute(PermutationConfig(num_experts=2), TWO)


def test_a_token_that_chose_an_expert_twice_has_a_row_for_each() -> None:
    routes = routes_of([[1, 1], [0, 1]])
    layout = SortedTokens(tokens=[1, 0, 0, 1], counts=[1, 3])
    assert permutation_of(layout, routes, 2).rows.tolist() == [2, 0, 1, 3]


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (SortedRoutes(routes=[0]), "one of ends, starts and counts"),
        (SortedRoutes(routes=[0], ends=[1, 1], starts=[0, 1, 1]), "one of ends, starts and counts"),
        (
            SortedRoutes(routes=[[0]], ends=[1, 1]),
            r"routes of shape \[any\] but got shape \(1, 1\)",
        ),
        (SortedRoutes(routes=[0], ends=[0, 1, 1]), r"ends of shape \[2\] but got shape \(3,\)"),
        (SortedRoutes(routes=[0.5], counts=[1, 0]), "routes to be an array of int64"),
        (SortedTokens(tokens=[0, 7], counts=[1, 1]), r"rows\[1\]=-2"),
        (RowOfRoute(row_of_route=[[0, 1]] * 3), "starts, or tile_experts, used_tiles and tile"),
        (RowOfRoute(row_of_route=[0], starts=[0, 1, 1]), r"row_of_route of shape \[3, 2\]"),
        (RowOfRoute(row_of_route=[[0, 1]] * 3, starts=[0, 1, 2**40]), "no buffer has more than"),
        (AlignedBlocks(rows=[0], block_experts=[0], used=[1, 1], block=1), "used to be one number"),
        (AlignedBlocks(rows=[0], block_experts=[0], used=1, block=0), "block >= 1 but got 0"),
    ],
)
def test_what_is_no_such_layout_is_refused_in_one_line(layout: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        permutation_of(layout, TWO, 2)
    assert "\n" not in str(refused.value)


def test_what_a_layout_cannot_hold_is_refused() -> None:
    padded = permute(PermutationConfig(num_experts=2, align=4), TWO)
    with pytest.raises(ValueError, match=r"padding \(rows\[2\]=-1\) in SortedTokens.* align=1"):
        as_sorted_tokens(padded, TWO)
    with pytest.raises(ValueError, match="realign the permutation with align=4 first"):
        as_aligned_blocks(DUE, TWO, block=4)
    with pytest.raises(ValueError, match="ends or starts but got 'exclusive'"):
        as_sorted_routes(DUE, TWO, convention="exclusive")


# What libraries return, from their own code.

ROUTES = routes_of(np.random.default_rng(7).permuted(np.tile(np.arange(6), (9, 1)), axis=1)[:, :3])
STABLE = permute(PermutationConfig(num_experts=6), ROUTES)


_LIBS = "axolotl.integrations.kernels.libs"


def test_axolotls_scattermoe_is_read() -> None:
    pytest.importorskip("triton")
    pytest.importorskip("axolotl")
    experts = pytest.importorskip(f"{_LIBS}.scattermoe_lora.parallel_experts")
    torch = pytest.importorskip("torch")
    _, order, ends = experts.flatten_sort_count(torch.tensor(ROUTES.expert_ids), 6)
    found = permutation_of(SortedRoutes(routes=order, ends=ends), ROUTES, 6)
    assert found.starts.tolist() == STABLE.starts.tolist()
    for start, end in zip(
        found.starts[:-1], found.ends, strict=True
    ):  # the order inside an expert is free
        assert sorted(found.rows[start:end]) == STABLE.rows[start:end].tolist()


def test_megatrons_permute_is_read() -> None:
    utils = pytest.importorskip("megatron.core.transformer.moe.moe_utils")
    torch = pytest.importorskip("torch")
    chosen = torch.zeros(9, 6, dtype=torch.bool).scatter(1, torch.tensor(ROUTES.expert_ids), True)
    tokens = utils.permute(torch.zeros(9, 4), chosen)[2]
    found = permutation_of(SortedTokens(tokens=tokens, counts=chosen.sum(0)), ROUTES, 6)
    assert same(found, STABLE)


def test_torchtitans_local_reorder_is_read() -> None:
    dispatcher = pytest.importorskip("torchtitan.models.common.token_dispatcher")
    torch = pytest.importorskip("torch")
    weights, ids = (torch.tensor(np.array(a)) for a in (ROUTES.weights, ROUTES.expert_ids))
    _, tokens, sorted_weights = dispatcher.LocalTokenDispatcher._local_reorder(
        SimpleNamespace(top_k=3), torch.zeros(9, 4), weights, ids
    )
    layout = SortedTokens(tokens=tokens, counts=STABLE.counts)
    assert same(permutation_of(layout, ROUTES, 6), STABLE)
    assert sorted_weights.tolist() == weight_of_row(STABLE, ROUTES).tolist()


def test_deepspeeds_permute_indices_are_read() -> None:
    """They are rows of a buffer that is sorted by rank and expert; of one rank, by expert."""
    kernels = pytest.importorskip("deepspeed.moe.ep_kernels")
    torch = pytest.importorskip("torch")
    received = routes_of(np.sort(ROUTES.experts))
    counts = torch.tensor(STABLE.counts, dtype=torch.int32)
    answer = kernels.generate_permute_indices(counts, 6, 1, 27 + 6 * 8, 8, use_cpu=True)
    rows, sizes, ends = (np.asarray(each) for each in answer)
    found = permutation_of(SortedRoutes(routes=rows[: sizes.sum()], ends=ends), received, 6)
    due = permute(PermutationConfig(num_experts=6, align=8, empty_takes=8), received)
    assert same(found, due)
