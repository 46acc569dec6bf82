"""axolotl's newest release next to 0.16.1: the same routing of scattermoe, other parts of sonicmoe.

The environment variable ``MOE_ROUTING_AXOLOTL`` names the folder that holds the newest release
(``pip install --no-deps --target FOLDER axolotl==0.19.0``); tox installs it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from expert_calls import check_experts, experts_call

from moe_routing.conformance import Plan, select_clauses
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.scope import untried_methods
from moe_routing.conformance.clauses import Clause
from moe_routing.conformance.known.divergence import known_divergences
from moe_routing.implementations import BackendMissing, load_adapter
from moe_routing.implementations._axolotl import (
    INSTALL,
    expert_parallel_module,
    kernel_module,
)
from moe_routing.reference import PermutationConfig, Routes

pytest.importorskip("torch")
pytest.importorskip("triton")

NEWEST = os.environ.get("MOE_ROUTING_AXOLOTL", "")
INTERPRETED = """
from expert_calls import check_experts
from moe_routing.conformance.checking.scope import untried_methods
from moe_routing.implementations import load_adapter
assert "experts" not in untried_methods(load_adapter("scattermoe"))
for name in ("scattermoe", "scattermoe@gpt_oss", "scattermoe@lora"):
    check_experts(load_adapter(name))
from moe_routing.conformance.cli import main
clauses = ["--clause=experts.unchosen", "--clause=experts.zero-weight-overflow"]
few = ["--max-examples=2", "--no-isolate", "--cases=" + sys.argv[3]]
assert main(["check", "scattermoe", "scattermoe@gpt_oss", "sonicmoe", *clauses, *few]) == 0
clauses[1] = "--clause=experts.gradients-exact"
assert main(["check", "scattermoe@lora", *clauses, *few]) == 0
"""
OURS = (
    "axolotl",
    "_axolotl_expert_parallel",
    "_axolotl_scattermoe_lora",
    "_axolotl_sonicmoe",
)


@pytest.fixture
def newest(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if not NEWEST:
        pytest.skip("MOE_ROUTING_AXOLOTL names no folder with the newest release")
    with monkeypatch.context() as patch, imported_anew():
        patch.syspath_prepend(NEWEST)
        yield


@contextmanager
def imported_anew() -> Iterator[None]:
    """Import axolotl anew, inside and again afterwards.

    Its modules register operators in torch under one name: what the other release defines frees
    those of the first, whose functions would then call whatever operator lies in that memory.
    """
    _forget()
    yield
    _forget()


def _forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]
    for each in (kernel_module, expert_parallel_module):
        each.cache_clear()


def test_no_function_outlives_the_operator_that_it_calls() -> None:
    try:
        before = kernel_module("scattermoe_lora", "parallel_experts")
    except BackendMissing as error:
        pytest.skip(str(error))
    with imported_anew():
        assert kernel_module("scattermoe_lora", "parallel_experts") is not before
    assert kernel_module("scattermoe_lora", "parallel_experts") is not before


@pytest.mark.usefixtures("newest")
class TestTheNewest:
    def test_is_the_one_that_we_say_how_to_install(self) -> None:
        assert INSTALL.endswith(f"axolotl=={version('axolotl')}")

    @pytest.mark.parametrize("clause", select_clauses(["capacity.*"]), ids=lambda each: each.id)
    def test_its_rule_of_capacity_passes(self, clause: Clause) -> None:
        plan = Plan(clauses=[clause], max_examples=3)
        result = check_clause(load_adapter("drops:axolotl"), clause, plan)
        assert result.status == "pass", result.message

    @pytest.mark.parametrize("pattern", ["selection.valid-top-k", "weights.match", "dispatch.*"])
    def test_scattermoe_routes_as_in_0_16_1(self, pattern: str) -> None:
        for clause in select_clauses([pattern]):
            plan = Plan(clauses=[clause], max_examples=5, known=known_divergences([]))
            result = check_clause(load_adapter("scattermoe"), clause, plan)
            assert result.status == "pass", result.message
        file = kernel_module("scattermoe_lora", "layers").__file__
        assert Path(str(file)).is_relative_to(NEWEST)

    def test_sonicmoe_has_no_router_and_permutes(self) -> None:
        sonicmoe = load_adapter("sonicmoe")
        assert "route" in untried_methods(sonicmoe)
        for clause in select_clauses(["permutation.*"]):
            lacks = clause.part in ("inverse", "gather", "tiles")
            result = check_clause(sonicmoe, clause, Plan(clauses=[clause], max_examples=3))
            assert result.status == ("unsupported" if lacks else "pass"), result.message

    def test_sonicmoe_sorts_with_route_and_group(self) -> None:
        routes = Routes(
            expert_ids=np.array([[1, 0], [1, 2]]),
            weights=np.array([[0.25, 0.5], [0.75, 1.0]], np.float32),
        )
        sonicmoe: Any = load_adapter("sonicmoe")
        found = sonicmoe.permute(PermutationConfig(num_experts=3), routes)
        assert found.tokens.tolist() == [0, 0, 1, 1]
        assert found.counts.tolist() == [1, 2, 1]
        assert found.weights.tolist() == [0.5, 0.25, 0.75, 1.0]

    def test_the_interpreter_runs_scattermoes_experts(self, tmp_path: Path) -> None:
        pytest.importorskip("transformers")
        code = "import sys; sys.path[:0] = sys.argv[1:3]\n" + INTERPRETED
        folders = (NEWEST, str(Path(__file__).parents[1] / "helpers"))
        environment = {**os.environ, "TRITON_INTERPRET": "1"}  # read where triton is imported
        command = [sys.executable, "-c", code, *folders, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
        assert done.returncode == 0, done.stderr
        known = re.findall(r"(\S+): (\d) passed, (\d) known|(\S+): 2 known", done.stdout)
        assert known == [
            ("", "", "", "scattermoe"),
            ("", "", "", "scattermoe@gpt_oss"),
            ("sonicmoe", "1", "1", ""),
            ("", "", "", "scattermoe@lora"),
        ], done.stdout

    def test_sonicmoes_grouped_path_runs_experts(self) -> None:
        pytest.importorskip("transformers")
        check_experts(load_adapter("sonicmoe"))

    def test_without_a_gpu_or_the_interpreter_there_are_no_experts(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        assert "experts" in untried_methods(load_adapter("scattermoe"))
        gpt_oss: Any = load_adapter("scattermoe@gpt_oss")
        with pytest.raises(BackendMissing, match=r"need a GPU .* or TRITON_INTERPRET=1$"):
            gpt_oss.experts(*experts_call(gpt_oss, "clamped-swiglu", absent=False))


def test_sonicmoe_of_0_16_1_routes() -> None:
    pytest.importorskip("axolotl")
    if version("axolotl") != "0.16.1":
        pytest.skip("another axolotl is installed")
    assert {"permute", "experts"} < {*untried_methods(load_adapter("sonicmoe"))}
