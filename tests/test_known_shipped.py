"""The shipped known divergences: each is still there, where it is listed and only there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from moe_routing.conformance import Case, Divergence, Plan, load_known, save_case, select_clauses
from moe_routing.conformance.case import SharedCase
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.cli import main
from moe_routing.conformance.engine import check_clause
from moe_routing.conformance.judge import Bounds
from moe_routing.implementations import Capabilities, load_adapter, shipped_known

needs_axolotl = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("axolotl", "torch", "triton")),
    reason="axolotl, torch or triton is not installed",
)

SHIPPED = [entry for path in shipped_known() for entry in load_known(path)]
ADAPTERS = ("reference", "torch", "scattermoe", "sonicmoe")


def breaks(known: Divergence, name: str, folder: Path) -> bool:
    path = folder / "witness.json"
    save_case(known.witness, path, clause=known.clause)
    code = main(["replay", str(path), name])
    assert code in (0, 1), f"{name} cannot run"
    return code == 1


class TestShippedLists:
    def test_there_are_some_and_their_ids_differ(self) -> None:
        ids = [known.id for known in SHIPPED]
        assert ids
        assert len(set(ids)) == len(ids), ids

    @pytest.mark.parametrize("known", SHIPPED, ids=lambda known: known.id)
    def test_an_entry_is_about_its_own_witness(self, known: Divergence) -> None:
        assert set(known.adapters) <= set(ADAPTERS), "adapters that nobody ships"
        assert known.link.startswith("https://")
        assert all(select_clauses([glob]) for glob in known.affects)
        bounds = None
        if isinstance(known.witness, Case):
            config, inputs = known.witness.config, known.witness.inputs
            bounds = Bounds(config, inputs, Capabilities().numerics)
            for name in known.adapters:
                claimed = load_adapter(name).capabilities().admits(config, inputs)
                assert claimed, f"{name} does not claim the witness"
        assert known.covers(bounds, known.witness), "the witness lies outside the region"

    @needs_axolotl
    @pytest.mark.parametrize("known", SHIPPED, ids=lambda known: known.id)
    def test_a_witness_breaks_where_it_is_listed_and_nowhere_else(
        self, known: Divergence, tmp_path: Path
    ) -> None:
        for name in known.adapters:
            assert breaks(known, name, tmp_path), f"{known.id} is gone from {name}: remove it"
        others = [name for name in ADAPTERS if name not in known.adapters]
        for name in others:
            adapter, method = load_adapter(name), CLAUSES[known.clause].method
            claimed = hasattr(adapter, method) and (
                isinstance(known.witness, SharedCase)
                or adapter.capabilities().admits(known.witness.config, known.witness.inputs)
            )
            also = claimed and breaks(known, name, tmp_path)
            assert not also, f"{name} does it as well: list it"

    @needs_axolotl
    @pytest.mark.parametrize("name", ["scattermoe", "sonicmoe"])
    def test_the_lists_make_their_clauses_known(self, name: str) -> None:
        adapter = load_adapter(name)
        for id_ in sorted({known.clause for known in SHIPPED}):
            plan = Plan(clauses=[CLAUSES[id_]], max_examples=3, known=SHIPPED)
            result = check_clause(adapter, CLAUSES[id_], plan)
            listed = any(known.clause == id_ and name in known.adapters for known in SHIPPED)
            wanted = ("known",) if listed else ("pass", "unsupported")
            assert result.status in wanted, f"{id_}: {result.status} {result.message}"
