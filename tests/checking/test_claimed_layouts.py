"""Claims of arrays in rows alone: nothing else is given, shown, replayed or listed as known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from nightly import SERIES

from moe_routing.conformance import Case, Divergence, Plan, save_case
from moe_routing.conformance.cases.kinds import kind_of
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.replay import replay_case
from moe_routing.conformance.checking.scope import admits
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.cli import main
from moe_routing.conformance.events.registry import ROWS
from moe_routing.conformance.generators.construct import table_cases
from moe_routing.conformance.generators.inputs import with_strides
from moe_routing.conformance.generators.shared import make_shared_case
from moe_routing.implementations import Capabilities, Claim, Unsupported
from moe_routing.reference import RouterConfig, RouterInputs, Routing, route

CLAIM = Claim.plain(selection_bias=("none", "gate"))
CLAIMED = Capabilities(claims=(CLAIM,), layouts=("contiguous",))
PLAIN = RouterConfig(num_experts=4, top_k=2)
IN_ROWS = Case(config=PLAIN, inputs=RouterInputs(hidden=ROWS, gate_weight=np.eye(4)))
STRIDED = replace(IN_ROWS, inputs=with_strides(IN_ROWS.inputs))
REFUSALS = "robustness.rejects-unclaimed"


class InRows:
    """Claims inputs in rows; what it does with others, its subclasses say."""

    name = "in-rows"
    off = 0.0

    def capabilities(self) -> Capabilities:
        return CLAIMED

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        self.check(config, inputs)
        right = route(config, inputs)
        return replace(right, weights=right.weights + self.off)

    def check(self, config: RouterConfig, inputs: RouterInputs) -> None:
        self.capabilities().require(config, inputs)


class LooksAtNoStrides(InRows):
    """Checks all else by hand: strides, as a library that copies its inputs has it, do not matter.

    With strides it returns the right answer.
    """

    def check(self, config: RouterConfig, inputs: RouterInputs) -> None:
        if refused := CLAIM.refusals(config, inputs):
            raise Unsupported(refused[0])


class LacksADtype(LooksAtNoStrides):
    """Claims all but a dtype and strides, so that these are all that many a call is outside by."""

    def capabilities(self) -> Capabilities:
        return Capabilities(dtypes=("float32", "bfloat16"), layouts=("contiguous",))

    def check(self, config: RouterConfig, inputs: RouterInputs) -> None:
        if inputs.dtype == "float16":
            raise Unsupported("float16")


class StopsAtStrides(LooksAtNoStrides):
    """Stops at whatever does not lie in rows, with an exception that is not about claims."""

    def check(self, config: RouterConfig, inputs: RouterInputs) -> None:
        bad = [name for name, array in inputs.arrays().items() if not array.flags.c_contiguous]
        assert not bad, f"{bad} are not laid out in rows"
        super().check(config, inputs)


class Off(InRows):
    """Is wrong on every call."""

    off = 1.0


@pytest.mark.parametrize("adapter", [InRows, LooksAtNoStrides, StopsAtStrides])
def test_an_honest_backend_is_given_rows_alone_and_need_not_refuse_others(adapter: Any) -> None:
    for clause in CLAUSES.values():
        examples = 25 if clause.id == REFUSALS else 3
        plan = Plan(clauses=[clause], max_examples=examples, series=SERIES)
        found = check_clause(adapter(), clause, plan)
        assert found.status in ("pass", "unsupported"), f"{clause.id}: {found.message}"
        assert (found.status == "pass") >= (clause.id == REFUSALS)


def test_strides_alone_need_no_refusal() -> None:
    found = check_clause(LacksADtype(), CLAUSES[REFUSALS], Plan(clauses=[], max_examples=50))
    assert (found.status, found.message) == ("pass", "")


def test_a_strided_call_is_outside_of_every_clause() -> None:
    for clause in CLAUSES.values():
        assert not admits(clause, CLAIMED, STRIDED), clause.id
    assert admits(CLAUSES["weights.match"], CLAIMED, IN_ROWS)


@pytest.mark.parametrize("clause", ["weights.match", REFUSALS])
def test_a_strided_case_is_not_replayed(clause: str) -> None:
    assert replay_case(Off(), CLAUSES["weights.match"], IN_ROWS).status == "fail"
    found = replay_case(Off(), CLAUSES[clause], STRIDED)
    assert found.status == "unsupported"
    words = "hidden strided by (1, 3) (layouts=('contiguous',))"
    assert found.message == f"the case is outside the adapter's claims: {words}"


def test_a_strided_case_of_an_earlier_run_is_not_shown() -> None:
    clause = CLAUSES["weights.match"]
    plan = Plan(clauses=[clause], max_examples=5, kept={clause.id: (STRIDED,)})
    found = check_clause(LooksAtNoStrides(), clause, plan)
    assert (found.status, found.message) == ("pass", "")


def test_a_strided_case_is_no_witness_of_a_known_divergence() -> None:
    clause = CLAUSES["weights.match"]
    listed = Divergence(
        id="off",
        adapters=("in-rows",),
        clause=clause.id,
        reason="it adds one",
        link="where",
        witnesses=(STRIDED,),
    )
    plan = Plan(clauses=[clause], known=[listed])
    found = check_clause(Off(), clause, plan)
    assert found.status == "inconclusive"
    fix = "add one that is, or take the adapter out of its entry"
    assert found.message == f"no witness of the known divergence off is claimed: {fix}"
    plan = replace(plan, known=[replace(listed, witnesses=(IN_ROWS,))])
    assert check_clause(Off(), clause, plan).status == "known"


def test_the_list_of_known_divergences_takes_no_strided_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_case(STRIDED, Path("strided.json"), clause="weights.match")
    words = ["--known=known.toml", "--id=off", "--reason=it", "--link=where", "--no-isolate"]
    assert main(["known", "add", "strided.json", f"{__file__}:Off", *words]) == 2
    refusal = "strided.json is unsupported on in-rows; only failing cases can be listed"
    assert refusal in capsys.readouterr().err
    assert not Path("known.toml").exists()


def test_an_entry_whose_witness_is_not_claimed_is_not_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_case(STRIDED, Path("strided.json"), clause="weights.match")
    entry = {"id": "off", "adapters": ["in-rows"], "clause": "weights.match", "reason": "it"}
    listed = {"divergence": [{**entry, "link": "where", "witness": "strided.json"}]}
    Path("known.toml").write_text(tomli_w.dumps(listed))
    assert main(["known", "prune", f"{__file__}:Off", "--known=known.toml", "--no-isolate"]) == 0
    said = capsys.readouterr().out
    assert said == ("known.toml:1: no witness of off is claimed by in-rows\n0 removed, 1 kept\n")


def test_a_case_that_is_constructed_lies_in_rows_whatever_its_table_does() -> None:
    transposed = np.asfortranarray(ROWS, np.float32)
    bias = np.arange(8.0)[::2]
    (case, *_) = table_cases(CLAIMED, transposed, top_k=2, selection_bias=bias)
    for name, array in case.inputs.arrays().items():
        assert array.flags.c_contiguous, name


def test_shared_experts_are_claimed_by_dtype_and_layout_as_well() -> None:
    case = make_shared_case(
        kind="singular", gated=True, dtype="bfloat16", tokens=3, hidden=4, width=2, seed=1
    )
    strided = replace(case, inputs=with_strides(case.inputs))
    claimed = kind_of(case).claimed
    assert claimed(case, CLAIMED)
    assert not claimed(strided, CLAIMED)
    assert claimed(strided, Capabilities())
    assert not claimed(case, replace(CLAIMED, dtypes=("float32",)))
