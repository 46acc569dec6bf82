"""A kind of case that the suite does not have: one entry, one event and one clause are enough."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import strategies as st

from moe_routing.conformance import Divergence, Plan, load_case, save_case
from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.cases.kinds import KINDS, Kind
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.replay import replay_case
from moe_routing.conformance.clauses.registry import CLAUSES, Clause
from moe_routing.conformance.events.registry import EVENTS, Event
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.trial.base import BaseTrial
from moe_routing.implementations import Capabilities


@dataclass(frozen=True, kw_only=True)
class Factor:
    """How often each number is counted."""

    times: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Numbers:
    """What is multiplied: ``hidden [T, H]``."""

    hidden: npt.NDArray[np.float32]
    dtype: str = "float32"

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays by the names of their fields."""
        return {"hidden": self.hidden}


@dataclass(frozen=True, kw_only=True, eq=False)
class ToyCase(AnyCase):
    """A multiplication."""

    kind: ClassVar[str] = "toy"

    config: Factor
    inputs: Numbers


class ToyTrial(BaseTrial[ToyCase]):
    """A multiplication run on one adapter."""


def fewer_rows(case: ToyCase) -> Iterator[ToyCase]:
    for row in range(len(case.inputs.hidden)):
        hidden = np.delete(case.inputs.hidden, row, axis=0)
        yield replace(case, inputs=replace(case.inputs, hidden=hidden))


def case_of(times: int, *rows: float) -> ToyCase:
    hidden = np.array(rows, np.float32)[:, None]
    return ToyCase(config=Factor(times=times), inputs=Numbers(hidden=hidden))


def constructed(capabilities: Capabilities) -> Iterator[ToyCase]:
    yield case_of(2, 1.0, 2.0)


def drawn(capabilities: Capabilities) -> st.SearchStrategy[AnyCase]:
    rows = st.lists(st.integers(-8, 8), min_size=1, max_size=9)
    return st.builds(lambda times, r: case_of(times, *r), st.integers(2, 4), rows)


def multiplied(trial: ToyTrial) -> Failure | None:
    """Every number is multiplied."""
    due = trial.case.config.times * trial.case.inputs.hidden
    wrong = np.flatnonzero(trial.native[:, 0] != due[:, 0])
    if not len(wrong):
        return None
    t = int(wrong[0])
    summary = f"output[{t}]={trial.native[t, 0]}, but should be {due[t, 0]}"
    return Failure(stage="output", token=t, summary=summary)


TOY = Kind(
    case=ToyCase,
    config=Factor,
    inputs=Numbers,
    methods=("multiply",),
    trial=ToyTrial,
    reductions=(fewer_rows,),
    compared=("times", "tokens"),
)
EVENT = Event(
    slug="toy-rows",
    statement="several rows",
    occurs=lambda case: len(case.inputs.hidden) > 1,
    cases=constructed,
)
CLAUSE = Clause(
    id="toy.multiplied",
    level="MUST",
    statement="Every number is multiplied.",
    why="A toy.",
    check=multiplied,
    events=("toy-rows",),
    strategy=drawn,
    method="multiply",
)
PLAN = Plan(clauses=[CLAUSE], max_examples=50)


class Multiplies:
    """Multiplies, as it should; it routes nothing."""

    name = "toy"

    def capabilities(self) -> Capabilities:
        return Capabilities()

    def multiply(self, config: Factor, inputs: Numbers) -> npt.NDArray[np.float32]:
        return config.times * inputs.hidden


class LosesFives(Multiplies):
    """Counts a 5 once, where it is not the first row."""

    def multiply(self, config: Factor, inputs: Numbers) -> npt.NDArray[np.float32]:
        out = super().multiply(config, inputs)
        lost = inputs.hidden == 5.0
        lost[:1] = False
        return np.where(lost, inputs.hidden, out)


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enter the toy where a chapter enters what it has."""
    monkeypatch.setitem(KINDS, "toy", TOY)
    monkeypatch.setitem(EVENTS, "toy-rows", EVENT)
    monkeypatch.setitem(CLAUSES, "toy.multiplied", CLAUSE)


def test_it_is_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "case.json"
    save_case(case_of(3, 1.0, 2.5), path, clause="toy.multiplied")
    case, clause = load_case(path)
    assert isinstance(case, ToyCase)
    assert clause == "toy.multiplied"
    assert case.config == Factor(times=3)
    assert case.inputs.hidden.tolist() == [[1.0], [2.5]]


def test_it_keeps_its_memory_in_a_pickle() -> None:
    hidden = np.arange(6, dtype=np.float32).reshape(2, 3).T
    case = ToyCase(config=Factor(times=2), inputs=Numbers(hidden=hidden))
    again = pickle.loads(pickle.dumps(case))
    assert again.inputs.hidden.tolist() == hidden.tolist()
    assert again.inputs.hidden.strides == hidden.strides


def test_a_right_backend_passes_and_one_without_the_method_is_unsupported() -> None:
    result = check_clause(Multiplies(), CLAUSE, PLAN)
    assert (result.status, result.events) == ("pass", {"toy-rows": "witnessed"})
    assert result.examples == 50

    class Other:
        name = "other"
        capabilities = Multiplies.capabilities

    assert check_clause(Other(), CLAUSE, PLAN).status == "unsupported"


def test_a_failure_is_made_smaller_by_the_reductions_of_the_kind(tmp_path: Path) -> None:
    result = check_clause(LosesFives(), CLAUSE, PLAN)
    assert result.status == "fail"
    assert result.case is not None
    rows = result.case.inputs.hidden[:, 0].tolist()
    assert len(rows) == 2, f"{rows} can be made smaller"
    assert rows[1] == 5.0
    save_case(result.case, tmp_path / "case.json", clause=CLAUSE.id)
    replayed = replay_case(LosesFives(), CLAUSE, load_case(tmp_path / "case.json")[0])
    assert (replayed.status, replayed.message) == ("fail", result.message)


def test_a_known_divergence_covers_a_region_of_it() -> None:
    known = Divergence(
        id="loses-fives",
        adapters=("toy",),
        clause=CLAUSE.id,
        reason="it is a toy",
        link="none",
        witnesses=(case_of(2, 1.0, 5.0),),
    )
    result = check_clause(LosesFives(), CLAUSE, replace(PLAN, known=[known]))
    assert result.status == "known"
    (finding,) = result.findings
    assert finding.startswith("loses-fives covers too much")
    narrow = replace(known, when={"times": (2,)})
    assert check_clause(LosesFives(), CLAUSE, replace(PLAN, known=[narrow])).status == "fail"
