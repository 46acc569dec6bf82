"""The shipped adapters' permutations: each runs its library's code, and holds every clause."""

from __future__ import annotations

from importlib import import_module
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from moe_routing.conformance import Plan, select_clauses
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.clauses import Clause
from moe_routing.implementations import Adapter, Unsupported, load_adapter
from moe_routing.reference import PermutationConfig, Routes

pytest.importorskip("torch")

CODE = {
    "scattermoe": ("axolotl", None, ""),
    "megatron-core": ("megatron", "megatron.core.transformer.moe.moe_utils", "permute"),
    "torchtitan": (
        "torchtitan",
        "torchtitan.models.common.token_dispatcher",
        "LocalTokenDispatcher._local_reorder",
    ),
    "deepspeed:permute_indices": (
        "deepspeed",
        "deepspeed.moe.ep_kernels",
        "generate_permute_indices",
    ),
}
"""Each adapter: the package that it needs, and the function that its answers come from."""
LACKS = {
    "scattermoe": {"inverse", "gather", "tiles", "weights-follow"},
    "megatron-core": {"inverse", "gather", "tiles"},
    "torchtitan": {"inverse", "gather", "tiles"},
    "deepspeed:permute_indices": {"gather", "tiles", "weights-follow"},
}
"""The optional parts that an adapter's answers lack."""
CLAUSES = select_clauses(["permutation.*"])
IDS = np.array([[2, 0], [0, 1], [2, 0]])
ROUTES = Routes(expert_ids=IDS, weights=np.arange(1, 7, dtype=np.float32).reshape(3, 2) / 8)


def adapter(name: str) -> Adapter:
    pytest.importorskip(CODE[name][0])
    return load_adapter(name)


@pytest.mark.parametrize("clause", CLAUSES, ids=lambda each: each.id.partition(".")[2])
@pytest.mark.parametrize("name", CODE)
def test_every_clause_passes_or_is_about_what_is_not_returned(name: str, clause: Clause) -> None:
    result = check_clause(adapter(name), clause, Plan(clauses=[clause], max_examples=3))
    lacks = clause.id.partition(".")[2] in LACKS[name]
    lacks |= name == "scattermoe" and clause.id == "permutation.stable"
    assert result.status == ("unsupported" if lacks else "pass"), result.message


@pytest.mark.parametrize("name", [name for name in CODE if CODE[name][1]])
def test_the_librarys_function_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend: Any = adapter(name)
    _, module, path = CODE[name]
    owner: Any = import_module(str(module))
    *outer, function = path.split(".")
    for each in outer:
        owner = getattr(owner, each)
    spy = Mock(wraps=getattr(owner, function))
    monkeypatch.setattr(owner, function, lambda *given, **named: spy(*given, **named))
    align = 4 if name.startswith("deepspeed") else 1
    config = PermutationConfig(num_experts=3, align=align, empty_takes=align * (align > 1))
    backend.permute(config, ROUTES)
    assert spy.call_count == 1


@pytest.mark.parametrize("name", ["scattermoe", "torchtitan", "deepspeed:permute_indices"])
def test_absent_routes_are_refused_where_the_code_has_no_word_for_them(name: str) -> None:
    backend: Any = adapter(name)
    absent = Routes(expert_ids=np.array([[-1]]), weights=np.zeros((1, 1), np.float32))
    align = {"empty_takes": 1} if name.startswith("deepspeed") else {}
    with pytest.raises(Unsupported, match="absent=True"):
        backend.permute(PermutationConfig(num_experts=2, order="free", **align), absent)


def test_an_empty_expert_takes_a_block_of_deepspeed() -> None:
    backend: Any = adapter("deepspeed:permute_indices")
    config = PermutationConfig(num_experts=3, align=4, empty_takes=4)
    found = backend.permute(config, Routes(expert_ids=IDS[:1], weights=ROUTES.weights[:1]))
    assert found.ends.tolist() == [4, 8, 12]
    assert found.routes.tolist() == [1, -1, -1, -1, -1, -1, -1, -1, 0, -1, -1, -1]
