"""The stock: a constructed case is made once, for all clauses and adapters of a process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.events import EVENTS, Event
from moe_routing.conformance.events.stock import STOCK, Stock
from moe_routing.conformance.trial.memo import contents_of
from moe_routing.implementations import Capabilities, load_adapter
from moe_routing.reference import RouterConfig, RouterInputs

WHOLE = Capabilities()
NARROW = replace(WHOLE, dtypes=("float32",))


class Counted:
    """An event of so many cases of one token each, which counts what it constructs."""

    def __init__(
        self, number: int, *, first: int = 0, series: bool = False, fails: bool = False
    ) -> None:
        self.made, self.numbers, self.fails = 0, range(first, first + number), fails
        self.event = Event(
            slug=f"counted-{id(self)}",
            statement="any call",
            occurs=lambda bounds: bounds.inputs.num_tokens == 1,
            cases=self.cases,
            series=series,
        )

    def cases(self, capabilities: Capabilities) -> Iterator[Case]:
        for number in self.numbers:
            self.made += 1
            if self.fails:
                raise ValueError("cannot construct")
            hidden = np.full((1, 4), number, np.float32)
            inputs = RouterInputs(hidden=hidden, gate_weight=np.eye(4, dtype=np.float32))
            config = RouterConfig(num_experts=4, top_k=2, score="sigmoid")
            yield Case(config=config, inputs=inputs)


def test_what_was_constructed_is_not_constructed_again() -> None:
    stock, counted = Stock(), Counted(3, series=True)
    first, again = ([*stock.checked(counted.event, WHOLE)] for _ in range(2))
    assert counted.made == 3
    assert first == again
    assert len({id(each.memo) for each in first}) == 1, "a series is of the same few tokens"


def test_a_clause_takes_one_case_of_an_event_that_is_no_series() -> None:
    stock, counted = Stock(), Counted(3)
    assert len([*stock.checked(counted.event, WHOLE)]) == counted.made == 1


def test_a_series_can_be_read_while_it_is_read() -> None:
    stock, counted = Stock(), Counted(3, series=True)
    read = [
        len([*stock.checked(counted.event, WHOLE)]) for _ in stock.checked(counted.event, WHOLE)
    ]
    assert (read, counted.made) == ([3, 3, 3], 3)


def test_equal_cases_of_other_claims_share_what_follows_from_them() -> None:
    stock, counted = Stock(), Counted(1)
    (one,), (other,) = ([*stock.checked(counted.event, each)] for each in (WHOLE, NARROW))
    assert counted.made == 2
    assert one is other


@pytest.mark.parametrize("slug", ["clear-winners", "one-token", "ran-several", "gradient-any"])
def test_it_gives_what_the_event_constructs(slug: str) -> None:
    (stocked,) = Stock().checked(EVENTS[slug], WHOLE)
    plain = EVENTS[slug].constructed(WHOLE)
    assert plain is not None
    one, other = (contents_of(each.inputs.arrays()) for each in (stocked.case, plain))
    assert (one, repr(stocked.case.config)) == (other, repr(plain.config))


def test_what_cannot_be_constructed_says_so_each_time() -> None:
    stock, counted = Stock(), Counted(1, fails=True)
    for _ in range(2):
        with pytest.raises(ValueError, match="cannot construct"):
            [*stock.checked(counted.event, WHOLE)]
    assert counted.made == 2


def test_what_was_read_longest_ago_goes_first() -> None:
    stock, several = Stock(most=2**14), [Counted(1, first=n) for n in range(90)]
    for counted in several:
        [*stock.checked(counted.event, NARROW)]
        assert stock.weight <= stock.most
    [*stock.checked(several[-1].event, NARROW)]
    [*stock.checked(several[0].event, NARROW)]
    assert (several[-1].made, several[0].made) == (1, 2)


def test_too_long_a_series_is_not_kept_and_whole() -> None:
    stock, counted = Stock(most=2**10), Counted(9, series=True)
    assert [len([*stock.checked(counted.event, WHOLE)]) for _ in range(2)] == [9, 9]
    assert (stock.weight, counted.made) == (0, 18)


def test_a_clause_finds_what_another_one_has_left() -> None:
    STOCK.clear()
    adapter, plan = load_adapter("reference"), Plan(clauses=(), max_examples=1)
    check_clause(adapter, CLAUSES["invariance.repeatable"], plan)
    (before,) = STOCK.checked(EVENTS["any-case"], WHOLE)
    check_clause(adapter, CLAUSES["invariance.inputs-unchanged"], plan)
    (after,) = STOCK.checked(EVENTS["any-case"], WHOLE)
    assert before is after
    STOCK.clear()


def test_set_aside_it_holds_nothing_and_afterwards_what_it_held() -> None:
    stock, counted, other = Stock(), Counted(1), Counted(1, first=1)
    [*stock.checked(counted.event, WHOLE)]
    weight = stock.weight
    with stock.set_aside():
        assert stock.weight == 0
        [*stock.checked(counted.event, WHOLE), *stock.checked(other.event, WHOLE)]
    assert stock.weight == weight
    [*stock.checked(counted.event, WHOLE), *stock.checked(other.event, WHOLE)]
    assert (counted.made, other.made) == (2, 2)


def test_a_test_that_patches_finds_nothing_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    any_case = EVENTS["any-case"]
    (before,) = STOCK.checked(any_case, WHOLE)
    monkeypatch.setenv("A_NAME", "of no case")
    assert [*STOCK.checked(any_case, WHOLE)] == [before]
    monkeypatch.setattr(os, "name", os.name)
    assert [*STOCK.checked(any_case, WHOLE)] != [before]
    monkeypatch.undo()
    assert [*STOCK.checked(any_case, WHOLE)] == [before]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_fork_inherits_it() -> None:
    stock, counted = Stock(), Counted(1)
    [*stock.checked(counted.event, WHOLE)]
    child = os.fork()
    if child == 0:
        [*stock.checked(counted.event, WHOLE)]
        os._exit(counted.made)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
