"""Expert parallelism of libraries on two ranks: one import of each, all adapters."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from every_rank import installed

from moe_routing.conformance import load_known
from moe_routing.conformance.cases.kinds import facts_of, kind_of, trial_of
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.outcome import evaluate
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.implementations import (
    AdapterError,
    Capabilities,
    expand,
    is_shipped,
    load_adapter,
    shipped_known,
)
from moe_routing.implementations.ranks import OnRanks
from moe_routing.implementations.registry import load_rank, ranked

pytest.importorskip("torch")
if importlib.util.find_spec("transformers") is None:
    pytest.skip("transformers is not installed", allow_module_level=True)

ROOT = Path(__file__).parents[2]
EVERY = Path(__file__).parents[1] / "helpers" / "every_rank.py"
KNOWN = [entry for path in shipped_known() if path.stem == "ep" for entry in load_known(path)]
CASES = 4  # drawn for each clause: `moe-routing check ep --ranks 2` draws all
PARALLEL = [each for each in CLAUSES.values() if each.method in ("on_ranks", "gradients_on_ranks")]


@pytest.fixture(scope="module")
def every() -> Iterator[OnRanks]:
    made = OnRanks(f"{EVERY}:Every", 2, seconds=9.0)
    yield made
    made.close()


@cache
def claimed(name: str) -> Capabilities:
    from moe_routing.implementations.ranks.adapter import of_so_many

    return of_so_many(name, load_rank(name).capabilities(), 2)


class One:
    """One of the adapters that the ranks hold."""

    def __init__(self, every: OnRanks, name: str) -> None:
        self.name, self._every = name, every

    def capabilities(self) -> Capabilities:
        return claimed(self.name)

    def on_ranks(self, config: Any, batches: Any, placement: Any) -> list[Any]:
        calls = [(config, each, placement, rank) for rank, each in enumerate(batches)]
        return self._every.called(f"{self.name} on_rank", calls)

    def gradients_on_ranks(
        self, config: Any, batches: Any, placement: Any, cotangents: Any
    ) -> list[Any]:
        calls = [(config, e, placement, r, cotangents[r]) for r, e in enumerate(batches)]
        return self._every.called(f"{self.name} rank_gradients", calls)


def need(name: str) -> None:
    if name not in installed():
        pytest.skip(f"what {name} wraps is not installed")


@pytest.mark.parametrize("name", ranked())
def test_an_adapter_is_right_on_two_ranks(every: OnRanks, name: str) -> None:
    need(name)
    plan = Plan(clauses=PARALLEL, max_examples=CASES, known=KNOWN)
    check = partial(check_clause, One(every, name))
    for clause in PARALLEL:
        if any(known.touches(name, clause.id) for known in KNOWN):
            continue
        result = check(clause, plan)
        assert result.status in ("pass", "unsupported"), f"{clause.id}: {result.message}"


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.id)
def test_a_known_divergence_is_there_and_where_it_is_listed_alone(
    every: OnRanks, known: Any
) -> None:
    clause = CLAUSES[known.clause]
    assert (
        f"\n## {known.id}\n\n- Clause: `{known.clause}`"
        in (ROOT / "docs" / "findings" / "transformers.md").read_text()
    )
    for case in known.witnesses:
        assert known.covers(facts_of(case, Capabilities()), case)
        for name in installed():
            if not kind_of(case).claimed(case, claimed(name)):
                continue
            outcome = evaluate(clause, trial_of(One(every, name), case, clause.method))
            assert outcome.broken == (name in known.adapters), f"{name}: {outcome.words}"


def test_a_rank_alone_is_refused_with_the_fix() -> None:
    assert "ep:all_to_all" in expand("ep")
    assert is_shipped("ep:all_to_all")
    with pytest.raises(AdapterError, match="runs on several ranks at once: add --ranks 2"):
        load_adapter("ep:all_to_all")
    with pytest.raises(AdapterError, match="ep:axolotl is out of scope: axolotl's expert_parallel"):
        load_rank("ep:axolotl")
    with pytest.raises(AdapterError, match=r"there are .*ep:all_to_all"):
        load_rank("ep:all_to_some")
