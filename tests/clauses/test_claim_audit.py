"""The audit of claims, both ways: what is claimed must work, and all else must be refused."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from moe_routing.conformance import Divergence, Plan
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.cli import main
from moe_routing.conformance.events.registry import ROWS
from moe_routing.conformance.generators.axes import SCALES
from moe_routing.conformance.generators.construct import table_cases
from moe_routing.conformance.generators.neighbours import neighbours
from moe_routing.implementations import Capabilities, Claim, GroupRule, Limits, load_adapter
from moe_routing.implementations.claims import GATE_AXES
from moe_routing.reference import Renormalize, RouterConfig, SharedSlots, check_inputs

DATA = Path(__file__).parents[1] / "data"
CLAUSE = CLAUSES["robustness.rejects-unclaimed"]


def module_of(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FORGETFUL = module_of(DATA / "forgetful_adapters.py")
SIGMOID = Claim(
    name="sigmoid",
    score=("sigmoid",),
    weights_from=("scores",),
    groups=(GroupRule(top=(2,), fill=(0.0,)),),
    renormalize=(Renormalize(),),
    scale=(2.5,),
    logit_softcap=(True,),
    logit_multiplier=(True,),
    logits_dtype=("float32",),
    scores_dtype=("float32",),
    weights_dtype=("float32",),
    input_norm=(True,),
    selection_bias=("block",),
    gate_bias=(True,),
    gate_delta=(True,),
    per_expert_scale=(True,),
    expert_table=(False,),
)
"""A claim that leaves something out in every axis, and mostly the plain."""

PRECISE = Claim.plain(
    **{f"{stage}_dtype": ("float32",) for stage in ("logits", "scores", "weights")}
)
CLAIMED = {
    "plain": Capabilities(
        claims=(PRECISE,),
        dtypes=("float32",),
        limits=Limits(max_experts=64, max_top_k=8, max_tokens=300, experts_multiple_of=2),
    ),
    "all parts": Capabilities(claims=(SIGMOID,)),
    "several": Capabilities(claims=(SIGMOID, PRECISE)),
    "logits": Capabilities(claims=(PRECISE,), takes="logits"),
    "in groups": Capabilities(
        claims=(Claim(groups=(GroupRule(),), expert_table=(False,)),),
        limits=Limits(
            experts=(8, 16, 32, 64),
            top_k=(1, 2, 4),
            min_tokens=2,
            max_groups=4,
            max_kept_groups=3,
            min_group_size=4,
            max_group_size=16,
            max_kept_experts=32,
        ),
    ),
    "hash": Capabilities(claims=(Claim.plain(expert_table=(True,)),)),
    "shared": Capabilities(claims=(Claim.plain(shared_slots=(SharedSlots(),)),)),
    "wide gate": Capabilities(claims=(Claim.plain(gate_dtype=("float32",)),), dtypes=("bfloat16",)),
}
AXES = [field.name for field in fields(Claim) if field.name != "name"]
LIMITS = {
    "limits.experts": "num_experts",
    "limits.top_k": "top_k",
    "min_tokens": "num_tokens",
    "max_groups": "groups.count",
    "max_kept_groups": "groups.kept",
    "min_group_size": "experts_per_group",
    "max_group_size": "experts_per_group",
    "max_kept_experts": "experts of the kept groups",
}
"""The limits that are claimed in groups, with the word that names each where it is passed."""
YOUNGER = [
    axis
    for axis in AXES
    if getattr(Claim.plain(), axis) == getattr(Claim(), axis) != getattr(Claim.whole(), axis)
]
"""The axes that came after 1.0: backends claim their plain value, unless they name another."""
SIZES = ["num_experts", "top_k", "num_tokens", "experts_multiple_of", "dtype"]


def result(adapter: Any, examples: int = 10) -> Any:
    return check_clause(adapter, CLAUSE, Plan(clauses=[CLAUSE], max_examples=examples))


@pytest.mark.parametrize("name", CLAIMED)
def test_a_backend_that_refuses_all_that_it_does_not_claim_passes(name: str) -> None:
    found = result(FORGETFUL.Forgets("", CLAIMED[name]))
    assert found.status == "pass", found.message


def leaves_out(axis: str, name: str) -> bool:
    """Whether some valid call is kept outside these claims by this axis alone."""
    if axis in SIZES:
        return name == "plain"
    if axis in YOUNGER:
        return False  # who never heard of it cannot refuse it
    if name == "logits" and axis in (*GATE_AXES, "input_norm"):
        return False  # nothing of the gate goes with logits that are given
    if (axis, name) == ("expert_table", "all parts"):
        return False  # no table goes with a selection bias, which is always there
    return any(getattr(each, axis) != getattr(Claim(), axis) for each in CLAIMED[name].claims)


FORGOTTEN = [
    (axis, name)
    for axis in (*AXES, *SIZES)
    for name in ("plain", "all parts", "several", "logits")
    if leaves_out(axis, name)
] + [
    *((limit, "in groups") for limit in LIMITS),
    ("gate_dtype", "wide gate"),
    ("shared_slots", "shared"),
]


def test_every_axis_is_left_out_by_some_claims() -> None:
    assert {axis for axis, _ in FORGOTTEN} == {*AXES, *SIZES, *LIMITS}
    limits = {axis.removeprefix("limits.") for axis in {*LIMITS, *SIZES}}
    named = {field.name for field in fields(Limits)}
    assert named - limits == {"max_experts", "max_top_k", "max_tokens"}, "SIZES has them by letter"


@pytest.mark.parametrize(("axis", "name"), FORGOTTEN)
def test_whatever_axis_a_backend_forgets_to_check_is_found_in_every_profile(
    axis: str, name: str
) -> None:
    capabilities = CLAIMED[name]
    found = result(FORGETFUL.Forgets(axis, capabilities))
    assert found.status == "fail", f"{axis} is answered, and nothing says so"
    word = {"experts_multiple_of": "num_experts", **LIMITS}.get(axis, axis)
    assert found.message.startswith(f"not claimed: {word}="), found.message
    assert found.message.endswith("was answered (Routing), but should raise Unsupported")


@pytest.mark.parametrize("name", CLAIMED)
def test_neighbours_are_valid_calls_next_to_the_claimed_one(name: str) -> None:
    capabilities = CLAIMED[name]
    (case, *_) = table_cases(capabilities, ROWS, top_k=2)
    around = list(neighbours(case, capabilities.limits))
    assert len(around) > 20
    for each in around:
        check_inputs(each.config, each.inputs)
        RouterConfig(**vars(each.config))
        claim, refusals = capabilities.nearest(each.config, each.inputs)
        assert len(refusals) <= 1, f"{refusals} is more than one step from {claim}"


@pytest.mark.parametrize("limit", ["max_tokens", "max_experts", "max_top_k"])
def test_no_case_is_made_beyond_a_limit_that_only_an_index_has(limit: str) -> None:
    (case, *_) = table_cases(CLAIMED["plain"], ROWS, top_k=2)
    within = len(list(neighbours(case, Limits())))
    assert len(list(neighbours(case, Limits(**{limit: 300})))) == within + 1
    assert len(list(neighbours(case, Limits(**{limit: 2**40})))) == within


def test_a_backend_that_claims_the_whole_specification_has_nothing_to_refuse() -> None:
    found = result(load_adapter("reference"))
    assert (found.status, found.message) == (
        "unsupported",
        "nothing to check: the case and all that is one axis away from it are claimed, or known",
    )


@pytest.mark.parametrize("name", CLAIMED)
def test_an_axis_that_is_younger_than_a_backend_is_not_tried_on_it(name: str) -> None:
    (case, *_) = table_cases(CLAIMED[name], ROWS, top_k=2)
    around = list(neighbours(case, CLAIMED[name].limits))
    assert not any(each.config.groups and each.config.groups.from_each for each in around)
    assert {each.inputs.gate_dtype for each in around} <= {"input", case.inputs.gate_dtype}


class TestTold:
    """Through the command line, as its user reads it."""

    @pytest.fixture(autouse=True)
    def _in_a_folder_of_its_own(self, tmp_path: Path) -> Iterator[None]:
        with chdir(tmp_path):  # no patch, after which constructed cases are made anew
            yield

    def check(self, adapter: str, clause: str) -> tuple[int, dict[str, Any]]:
        argv = ["check", f"{DATA}/{adapter}", f"--clause={clause}", "--json=report.json"]
        code = main([*argv, "--profile=smoke"])
        (found,) = json.loads(Path("report.json").read_text())["adapters"][0]["clauses"]
        return code, found

    def test_of_an_adapter_that_claims_too_little(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, found = self.check("forgetful_adapters.py:ForgetsScale", CLAUSE.id)
        assert (code, found["status"]) == (1, "fail")
        out = capsys.readouterr().out
        assert "not claimed: scale=2.5: was answered (Routing), but should raise Unsupported" in out
        assert "call    T=1 (H=1 E=1 K=1, float32): scale=2.5" in out, out
        assert "nearest claim 1, 'plain', which has scale=(1.0,)" in out
        fix = "refuse it, as self.capabilities().require(config, inputs) does, or claim it"
        assert f"fix     {fix}" in out
        replay = ["replay", found["case"], f"{DATA}/forgetful_adapters.py:ForgetsScale"]
        assert main(replay) == 1
        assert "scale=2.5" in capsys.readouterr().out, "the case alone should give the same"

    def test_of_an_adapter_that_claims_too_much(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, found = self.check("wrong_adapters.py:ClaimsTooMuch", "robustness.answers")
        assert (code, found["status"]) == (1, "fail")
        out = capsys.readouterr().out
        assert "raised NotImplementedError: selection_bias" in out
        assert "call    T=1 (H=1 E=1 K=1, " in out
        assert "with selection_bias on the gate" in out
        assert "claimed by claim 1" in out
        assert "fix     answer it, or narrow the claim to what the backend does" in out


def test_what_a_known_divergence_covers_is_not_checked_and_the_rest_is() -> None:
    adapter = FORGETFUL.Forgets("scale", CLAIMED["plain"])
    found = result(adapter)
    assert found.case.config.scale == 2.5, "the case should be the call that was answered"
    entry = Divergence(
        id="answers-any-scale",
        adapters=("forgets",),
        clause=CLAUSE.id,
        reason="why",
        link="where",
        witnesses=(found.case,),
        when={"scale": tuple(scale for scale in SCALES if scale != 1.0)},
    )
    plan = Plan(clauses=[CLAUSE], max_examples=10, known=[entry])
    assert check_clause(adapter, CLAUSE, plan).status == "known"
    adapter._checks_out = lambda config, inputs: True
    assert check_clause(adapter, CLAUSE, plan).status == "fail"
