"""The table of transformers' routers: complete, built from real classes, and reachable by name."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.cli import main
from moe_routing.implementations import (
    AdapterError,
    BackendMissing,
    DenseRouting,
    Unsupported,
    expand,
    load_adapter,
    out_of_scope,
    registered,
)
from moe_routing.implementations.transformers.blocks import build_block, state_of
from moe_routing.implementations.transformers.table import MEMBERS, ROWS, UNSERVED
from moe_routing.reference import PRESETS, RouterConfig, RouterInputs, preset

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5.23")

NO_ROUTERS = {
    "dbrx.DbrxFFN": "the block of DbrxRouter, which selects on its behalf",
    "granite_docling.GraniteDoclingDensityRouter": "separates dense tiles of a page from others",
    "qwen3_omni_moe.Qwen3OmniMoeTextTopKRouter": "never instantiated",
    "switch_transformers.SwitchTransformersForConditionalGeneration": "the auxiliary loss",
}
"""What the scan finds besides the routers, and what it is."""

ALIASES = {"deepseek_v4_hash": "deepseek_v4"}
"""The rows whose model type has two routers."""

every_row = pytest.mark.parametrize("name", MEMBERS)


def scanned() -> set[str]:
    """Find the classes that are called a router, or that select something and mention experts."""
    found = set()
    for path in sorted(Path(transformers.__file__).parent.glob("models/*/modeling_*.py")):
        source = path.read_text(encoding="utf-8")
        if "expert" not in source and "Router" not in source:
            continue
        lines = source.splitlines()
        for node in ast.parse(source).body:
            if not isinstance(node, ast.ClassDef):
                continue
            body = "\n".join(lines[node.lineno - 1 : node.end_lineno])
            named = re.search(r"(Router|TopKGating|MoE\w*Gate)$", node.name)
            selects = re.search(r"\b(topk|argmax|argsort|sort)\b", body) and "expert" in body
            if named or selects:
                found.add(f"{path.parent.name}.{node.name}")
    return found


def smallest(name: str) -> Case:
    """A call of two experts, one token and K = 1 that the row claims."""
    chosen = preset(ROWS[name].served[0])
    fields = {**vars(chosen.config), "num_experts": 2, "top_k": 1}
    if chosen.config.groups is not None:
        rule = chosen.config.groups
        fields["groups"] = type(rule)(count=1, kept=1, top=rule.top, fill=rule.fill)
    arrays: dict[str, Any] = {}
    if chosen.expert_table:
        arrays = {"expert_table": np.array([[1]]), "token_ids": np.array([0])}
    return Case(
        config=RouterConfig(**fields),
        inputs=RouterInputs(hidden=[[1.0, 0.0]], gate_weight=np.eye(2), **arrays),
    )


def router_of(name: str) -> tuple[Any, Any]:
    row, case = ROWS[name], smallest(name)
    block = build_block(row, case.config, replace(case.inputs, dtype="bfloat16"), "cpu")
    return block, block.get_submodule(row.router)


def class_of(module: Any) -> str:
    file = type(module).__module__.rpartition(".")[2].removeprefix("modeling_")
    return f"{file}.{type(module).__name__}"


class TestNothingIsMissing:
    def test_every_router_class_has_a_row_or_a_reason(self) -> None:
        served = {class_of(router_of(name)[1]) for name in MEMBERS}
        unserved = {each.router for each in UNSERVED}
        assert len(served) == len(MEMBERS) == 70, "two rows share a router class"
        assert not served & unserved
        assert scanned() == served | unserved | set(NO_ROUTERS)

    def test_a_reason_is_a_sentence_part(self) -> None:
        for each in UNSERVED:
            assert re.fullmatch(r"[a-z].*[a-z)]", each.reason), each.reason

    @every_row
    def test_a_row_bears_the_name_of_its_model_type(self, name: str) -> None:
        auto = importlib.import_module("transformers.models.auto.configuration_auto")
        assert ROWS[name].config_type == ALIASES.get(name, name)
        assert ROWS[name].config_type in auto.CONFIG_MAPPING

    def test_every_preset_is_served_by_one_row(self) -> None:
        served = [each for row in ROWS.values() for each in row.served]
        assert sorted(served) == sorted(PRESETS)

    @every_row
    def test_every_tensor_of_the_router_has_an_array(self, name: str) -> None:
        block, router = router_of(name)
        state, inside = state_of(block), {id(tensor) for tensor in state_of(router).values()}
        unfilled = {k for k, v in state.items() if id(v) in inside} - set(ROWS[name].arrays)
        assert inside, "a router without a weight"
        assert not unfilled, "tensors that are never filled"
        gates = [k for k, field in ROWS[name].arrays.items() if field == "gate_weight"]
        kept = any(str(state[each].dtype) == "torch.float32" for each in gates)
        claimed = any("float32" in each.gate_dtype for each in ROWS[name].capabilities().claims)
        assert kept == claimed, "a row claims a float32 gate where loading keeps one"

    @every_row
    def test_a_row_promises_the_order_that_its_topk_has(self, name: str) -> None:
        row = ROWS[name]
        if row.capabilities().promises.slots == "free":
            return
        chosen = preset(row.served[0])
        top_k = 1 if row.limits.max_top_k == 1 else 3
        groups = chosen.config.groups and replace(chosen.config.groups, count=2, kept=2)
        config = replace(chosen.config, num_experts=6, top_k=top_k, groups=groups)
        gate = np.eye(6, dtype=np.float32)[[2, 4, 0, 5, 1, 3]]
        hidden = np.array([[1.5, 0.25, 1.0, 0.5, 0.75, 0.0]], dtype=np.float32)
        inputs = RouterInputs(hidden=hidden, gate_weight=gate)
        answer = load_adapter(f"transformers:{name}").route(config, inputs)
        assert answer.expert_ids.tolist() == [[2, 0, 1][:top_k]]


class TestAdapters:
    @every_row
    def test_answers_what_it_claims_and_refuses_the_rest(self, name: str) -> None:
        adapter, case = load_adapter(f"transformers:{name}"), smallest(name)
        answer = adapter.route(case.config, case.inputs)
        wanted = 1 if case.inputs.expert_table is not None else 0
        if isinstance(answer, DenseRouting):
            assert answer.weights.nonzero().tolist() == [[0, wanted]]
        else:
            assert answer.expert_ids.tolist() == [[wanted]]
            assert tuple(answer.weights.shape) == (1, 1)
        unclaimed = RouterConfig(num_experts=2, top_k=1, logit_softcap=2.0, logit_multiplier=3.0)
        with pytest.raises(Unsupported):
            adapter.route(unclaimed, case.inputs)

    def test_each_claims_its_published_models(self) -> None:
        for name, row in ROWS.items():
            claims = row.capabilities().claims
            for each in row.served:
                assert any(claim.covers(preset(each).config) for claim in claims), (name, each)

    def test_an_older_package_is_refused_in_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gone = "transformers.models.beam.modeling_beam"
        monkeypatch.setitem(sys.modules, gone, None)
        adapter, case = load_adapter("transformers:beam"), smallest("beam")
        with pytest.raises(BackendMissing, match=r"no beam router .*pip install transformers=="):
            adapter.route(case.config, case.inputs)

    def test_no_adapter_imports_the_package_before_it_is_called(self) -> None:
        source = inspect.getsource(importlib.import_module("moe_routing.implementations.registry"))
        assert "import transformers" not in source
        assert load_adapter("transformers:qwen3_moe").capabilities().claims


class TestNames:
    def test_the_family_stands_for_all_of_them(self) -> None:
        assert expand("transformers") == [f"transformers:{name}" for name in MEMBERS]
        assert expand("transformers:*") == expand("transformers")
        assert set(expand("transformers")) <= set(registered())

    def test_a_glob_stands_for_its_matches_and_another_name_for_itself(self) -> None:
        assert expand("transformers:glm4_moe*") == [
            "transformers:glm4_moe",
            "transformers:glm4_moe_lite",
        ]
        assert expand("scattermoe") == ["scattermoe"]
        assert expand("my_router.py:MyRouter") == ["my_router.py:MyRouter"]

    @pytest.mark.parametrize(
        ("reference", "words"),
        [
            ("transformers:quen3_moe", "'transformers:quen3_moe': .*70 adapters, .*qwen3_moe"),
            ("transformers:phimoe", r"out of scope: .*sparsemixer"),
            ("transformers", "'transformers:'.* stands for 70 adapters"),
            ("transformer", "did you mean transformers?"),
        ],
    )
    def test_what_is_no_adapter_is_reported_in_one_line(self, reference: str, words: str) -> None:
        with pytest.raises(AdapterError, match=words) as error:
            load_adapter(reference)
        assert "\n" not in str(error.value)

    def test_the_reasons_are_listed_by_name(self) -> None:
        family = {name for name in out_of_scope() if name.startswith("transformers:")}
        assert family == {f"transformers:{each.name}" for each in UNSERVED}
        assert not set(out_of_scope()) & set(registered())

    def test_check_takes_a_glob(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        arguments = [
            "--no-isolate",
            "--profile",
            "smoke",
            "--clause",
            "weights.dtype",
            "--cases",
            str(tmp_path),
        ]
        assert main(["check", "transformers:minimax*", *arguments]) == 0
        printed = capsys.readouterr().out
        for name in ("minimax", "minimax_m2", "minimax_m3_vl_text"):
            assert f"transformers:{name}: 1 passed" in printed
