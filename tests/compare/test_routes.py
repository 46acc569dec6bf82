"""One case, several answers: which tokens differ, and whether rounding or a tie explains it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.compare.routers import Router, open_routers
from moe_routing.conformance.compare.routes import Routes, routes_of
from moe_routing.conformance.run.session import in_process
from moe_routing.implementations import Capabilities
from moe_routing.reference import Groups, Renormalize, RouterConfig, RouterInputs, Routing

PLAN = Plan(clauses=())


class Fixed:
    """A router that chooses the same experts for every token, each with the weight 1 / K."""

    def __init__(self, name: str, *experts: int) -> None:
        self.name, self.experts = name, experts

    def capabilities(self) -> Capabilities:
        return Capabilities()

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        shape = inputs.num_tokens, len(self.experts)
        ids = np.array([self.experts] * inputs.num_tokens, int).reshape(shape)
        weights = np.full(ids.shape, 1.0 / max(1, len(self.experts)), np.float32)
        return Routing(weights=weights, expert_ids=ids)


def routers(*adapters: Any) -> list[Router]:
    seats = in_process({str(number): each for number, each in enumerate(adapters)}, PLAN)
    return open_routers(seats, dict.fromkeys(seats, ()))


def case(rows: Sequence[Sequence[float]], top_k: int = 1, **config: Any) -> Case:
    inputs = RouterInputs.from_logits(np.array(rows, np.float32))
    made = RouterConfig(num_experts=len(rows[0]), top_k=top_k, **config)
    return Case(config=made, inputs=inputs)


def told(routes: Routes) -> dict[str, list[int]]:
    """The tokens by what became of them, those with none left out."""
    kinds = ("differ", "ties", "rounding", "undefined")
    found = {name: np.flatnonzero(getattr(routes, name)).tolist() for name in kinds}
    wrong = {
        each.letter: np.flatnonzero(row).tolist()
        for each, row in zip(routes.routers, routes.refused, strict=True)
    }
    return {name: tokens for name, tokens in {**found, **wrong}.items() if tokens}


SIGMOID = {"score": "sigmoid", "renormalize": Renormalize()}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[1.0, 1.0, 0.0]], {"differ": [0], "ties": [0]}),
        ([[18.0, 30.0, 0.0]], {"differ": [0], "rounding": [0]}),
        ([[2.0, 1.0, 0.0]], {"differ": [0], "B": [0]}),
        ([[0.0, 1.0, 2.0]], {"differ": [0], "A": [0], "B": [0]}),
        ([[np.nan] * 3, [1.0, 1.0, 0.0]], {"differ": [0, 1], "ties": [1], "undefined": [0]}),
        ([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0]], {"differ": [0, 1], "A": [1], "B": [0]}),
        ([], {}),
    ],
    ids=["a tie", "saturated", "far apart", "both wrong", "NaN", "each once", "no tokens"],
)
def test_a_difference_is_told_from_a_wrong_answer(
    rows: list[list[float]], expected: dict[str, list[int]]
) -> None:
    given = case(rows or [[0.0] * 3], **SIGMOID)
    if not rows:
        given = Case(config=given.config, inputs=RouterInputs.from_logits(np.zeros((0, 3), "f")))
    assert told(routes_of(given, routers(Fixed("a", 0), Fixed("b", 1)))) == expected


def test_experts_of_the_same_rows_tie_whatever_their_sums_round_to() -> None:
    gate = np.random.default_rng(0).standard_normal((9, 257)).astype(np.float32) / 16
    gate[8] = gate[0]
    hidden = gate[:1] * np.linspace(0.5, 1.0, 17, dtype=np.float32)[:, None]
    inputs = RouterInputs(hidden=hidden, gate_weight=gate)
    given = Case(config=RouterConfig(num_experts=9, top_k=1, **SIGMOID), inputs=inputs)
    assert told(routes_of(given, routers(Fixed("a", 0), Fixed("b", 8)))) == {
        "differ": [*range(17)],
        "ties": [*range(17)],
    }


def test_a_tie_of_groups_is_a_tie() -> None:
    groups = Groups(count=2, kept=1, top=1)
    given = case([[1.0, 1.0, 1.0, 1.0]], top_k=2, groups=groups, **SIGMOID)
    found = routes_of(given, routers(Fixed("a", 0, 1), Fixed("b", 3, 2)))
    assert found.ties.tolist() == [True]


def test_equal_sets_in_another_order_are_equal_routes() -> None:
    given = case([[1.0, 1.0, 0.0]], top_k=2, **SIGMOID)
    assert told(routes_of(given, routers(Fixed("a", 0, 1), Fixed("b", 1, 0)))) == {}


def test_equal_sets_of_which_one_has_wrong_weights_differ() -> None:
    given = case([[1.0, -1.0, -2.0]], top_k=2, **SIGMOID)
    found = routes_of(given, routers(Fixed("a", 0, 1), Fixed("b", 0, 1)))
    assert told(found) == {"A": [0], "B": [0]}, "they agree, both wrong"
    assert sorted(found.causes()) == [("A", "weights"), ("B", "weights")]


def test_an_answer_that_is_none_leaves_the_others_compared() -> None:
    given = case([[1.0, 1.0, 0.0]], **SIGMOID)
    found = routes_of(given, routers(Fixed("a", 0), Fixed("b"), Fixed("c", 1)))
    assert found.compared
    assert told(found) == {"differ": [0], "ties": [0]}
    assert sorted(found.causes()) == [("B", "error"), ("differ", "ties")]
    alone = routes_of(given, routers(Fixed("a", 0), Fixed("b")))
    assert not alone.compared
    assert told(alone) == {}


def test_routers_of_one_name_are_told_apart() -> None:
    assert [each.name for each in routers(Fixed("a", 0), Fixed("a", 1))] == ["a (A)", "a (B)"]
