"""The laws of permutations: right answers in every layout pass, and each wrong one is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from routed import calls, routes_of

from moe_routing.conformance.calls.permutation import PermutationCase
from moe_routing.conformance.judge import permutation_laws as laws
from moe_routing.conformance.judge import permutation_parts as parts
from moe_routing.conformance.judge.permutation import Due, Permuted
from moe_routing.conformance.trial.permutation import read
from moe_routing.reference import (
    AlignedBlocks,
    PermutationConfig,
    Routes,
    SortedRoutes,
    SortedTokens,
    as_aligned_blocks,
    as_row_of_route,
    as_sorted_routes,
    as_sorted_tokens,
    permute,
)

ALWAYS = (*parts.LAWS.values(), laws.no_waste, laws.stable, laws.capacity_of_buffer)
OF_PARTS = {
    "inverse": parts.inverse,
    "gather": parts.gather,
    "tiles": parts.tiles,
    "weights": parts.weights_follow,
}


def answer_of(layout: Any, config: PermutationConfig, routes: Routes) -> Permuted:
    return read(layout, PermutationCase(config=config, inputs=routes))


@settings(max_examples=150, deadline=None)
@given(calls())
def test_a_right_answer_breaks_no_law_in_any_layout(call: tuple[PermutationConfig, Routes]) -> None:
    config, routes = call
    found, due = permute(config, routes), Due(config, routes)
    layouts = [
        as_sorted_routes(found, routes),
        as_aligned_blocks(found, routes, block=config.align),
        as_row_of_route(found, routes),
        as_row_of_route(found, routes, tile=config.align),
    ]
    if config.align == 1 and not config.empty_takes:
        layouts.append(as_sorted_tokens(found, routes))
    for layout in layouts:
        answer = answer_of(layout, config, routes)
        held = [*ALWAYS, *(OF_PARTS[part] for part in answer.parts)]
        assert [law(due, answer) for law in held] == [None] * len(held)
        assert parts.same(due, answer, answer_of(layout, config, routes)) is None


@settings(max_examples=300, deadline=None)
@given(calls(), st.integers(0, 2**32 - 1))
def test_one_entry_that_differs_breaks_a_law(
    call: tuple[PermutationConfig, Routes], seed: int
) -> None:
    """Whatever is changed in rows, offsets or counts: none of them is free."""
    config, routes = call
    found, rng = permute(config, routes), np.random.default_rng(seed)
    name = rng.choice(["rows", "starts", "counts"])
    right = {n: getattr(found, n).copy() for n in ("rows", "starts", "counts")}
    if not right[name].size:
        return
    place = rng.integers(right[name].size)
    right[name][place] += rng.choice([-2, -1, 1, 2])
    layout = SortedRoutes(routes=right["rows"], starts=right["starts"], counts=right["counts"])
    answer, due = answer_of(layout, config, routes), Due(config, routes)
    assert any(law(due, answer) is not None for law in ALWAYS), (name, place)


ROUTES = routes_of([[1, 0], [1, -1], [0, 1]])
CONFIG = PermutationConfig(num_experts=2, align=2)
DUE = Due(CONFIG, ROUTES)
RIGHT = as_sorted_routes(permute(CONFIG, ROUTES), ROUTES, convention="starts")
BLOCKS = as_aligned_blocks(permute(CONFIG, ROUTES), ROUTES, block=2)


def test_the_example_is_what_it_seems() -> None:
    assert RIGHT.routes.tolist() == [1, 4, 0, 2, 5, -1]


@pytest.mark.parametrize(
    ("law", "changes", "words"),
    [
        (laws.conserved, {"routes": [1, 4, 0, 2, 0, -1]}, "slot 0 (route 0) is in rows 2 and 4"),
        (laws.conserved, {"routes": [1, 4, 0, 2, -1, -1]}, "(route 5) goes to expert 1, but is in"),
        (laws.conserved, {"routes": [1, 4, 0, 2, 5, 3]}, "(route 3) is absent, but is in row 5"),
        (laws.conserved, {"routes": [1, 4, 0, 2, 5, 6]}, "row 5 holds route 6, but there are 6"),
        (laws.grouped, {"routes": [1, 0, 4, 2, 5, -1]}, "row 1 lies in expert 0's segment, but"),
        (laws.counts, {"counts": [2, 4]}, "counts[1]=4, but the routes of expert 1 are 3"),
        (laws.offsets, {"starts": [0, 2, 5]}, "the last segment ends at row 5, but there are 6"),
        (laws.offsets, {"starts": [1, 2, 6]}, "the first segment starts at row 1"),
        (laws.offsets, {"starts": [0, 7, 6]}, "expert 1's segment goes from row 7 to 6"),
        (laws.aligned, {"starts": [0, 3, 6]}, "has 3 rows, but should have a multiple of 2"),
        (laws.no_waste, {"starts": [0, 4, 6]}, "has 4 rows, but its 2 routes need 2"),
        (laws.padding_marked, {"routes": [1, 4, 0, 2, 5, 5]}, "row 5 is padding, after the 3"),
        (laws.padding_marked, {"routes": [1, 4, -1, 0, 2, 5]}, "row 2 is padding, but the 3"),
        (laws.stable, {"routes": [4, 1, 0, 2, 5, -1]}, "(route 1), after route 4"),
        (parts.inverse, {"inverse": [[2, 0], [3, -1], [1, 5]]}, "(route 5) is 5, but row 5 holds"),
        (parts.inverse, {"inverse": [[2, 0], [3, 0], [1, 4]]}, "(route 3) is 0, but the route is"),
        (parts.gather, {"gather": [0, 2, 0, 1, 1, -1]}, "gather[4]=1, but the row holds token 2"),
        (parts.tiles, {"tile_experts": [1, 0, 1], "tile": 2}, "tile 1 is of expert 0, after a"),
        (parts.tiles, {"tile_experts": [0, 1], "tile": 2}, "expert 1 has 1 tiles of 2 rows, but"),
        (
            parts.tiles,
            {"tile_experts": [0, 2], "tile": 2},
            "tile 1 is of expert 2, but there",
        ),
        (parts.round_trip, {"gather": [0, 1, 0, 1, 2, -1]}, "(route 4) gets token 1 back"),
        (parts.round_trip, {"inverse": [[2, 0], [3, -1], [1, 5]]}, "gets the NaN of a padding row"),
    ],
)
def test_a_breach_names_its_place(law: Any, changes: dict[str, Any], words: str) -> None:
    changed = {name: np.array(v) if isinstance(v, list) else v for name, v in changes.items()}
    if changed.keys() & {"routes", "starts"} and law is not parts.round_trip:
        changed.setdefault("counts", None)
    breach = law(DUE, answer_of(replace(RIGHT, **changed), CONFIG, ROUTES))
    assert breach is not None
    assert words in breach.words, breach.words


def test_weights_are_compared_bit_by_bit() -> None:
    weights = RIGHT.weights.copy()
    weights[0] = np.nextafter(weights[0], np.float32(1))
    breach = parts.weights_follow(DUE, answer_of(replace(RIGHT, weights=weights), CONFIG, ROUTES))
    assert breach is not None
    assert breach.words.startswith("weights[0]=0.00195312")
    padded = replace(RIGHT, weights=np.where(RIGHT.routes < 0, np.float32(np.nan), RIGHT.weights))
    assert parts.weights_follow(DUE, answer_of(padded, CONFIG, ROUTES)) is None


def test_more_rows_than_the_buffer_has_are_told() -> None:
    short = replace(BLOCKS, rows=BLOCKS.rows[:4])
    breach = laws.capacity_of_buffer(DUE, answer_of(short, CONFIG, ROUTES))
    assert breach is not None
    assert breach.words == "6 rows are used of a buffer of 4"


def test_what_is_past_the_rows_in_use_is_not_read() -> None:
    rows, experts = np.append(BLOCKS.rows, [77, -5]), np.append(BLOCKS.block_experts, 9)
    longer = AlignedBlocks(rows=rows, block_experts=experts, used=6, block=2, padding=6)
    answer = answer_of(longer, CONFIG, ROUTES)
    assert [law(DUE, answer) for law in (*ALWAYS, parts.tiles)] == [None] * (len(ALWAYS) + 1)


def test_a_token_that_did_not_choose_its_expert_is_told() -> None:
    config = PermutationConfig(num_experts=2)
    layout = SortedTokens(tokens=np.array([0, 1, 0, 1, 2]), counts=np.array([2, 3]))
    breach = laws.conserved(Due(config, ROUTES), answer_of(layout, config, ROUTES))
    assert breach is not None
    assert breach.words.startswith("row 1 holds a token that did not choose expert 0")


def test_a_second_call_that_differs_is_told() -> None:
    other = replace(RIGHT, routes=np.array([4, 1, 0, 2, 5, -1]), inverse=None, gather=None)
    one, two = (answer_of(each, CONFIG, ROUTES) for each in (RIGHT, other))
    breach = parts.same(DUE, one, two)
    assert breach is not None
    assert breach.words == "row 0 held route 1 at first, and route 4 in a second call"
    free = Due(replace(CONFIG, order="free"), ROUTES)
    assert parts.same(free, one, two) is None
