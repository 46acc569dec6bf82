"""A case in which a clause has nothing to check: no verdict, and no event that counts as seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from narrow_adapter import Narrow

from moe_routing.conformance import Case, Plan, save_case
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.replay import Replayed, replay_case, standings
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.clauses.registry import Clause
from moe_routing.conformance.cli import main
from moe_routing.conformance.known.divergence import Divergence
from moe_routing.conformance.trial.base import Unchecked
from moe_routing.implementations import Claim, Limits, load_adapter
from moe_routing.reference import (
    Groups,
    Renormalize,
    RouterConfig,
    RouterInputs,
)

REFERENCE = load_adapter("reference")
ROWS = np.array([[1.0, 0.25, -0.5, 2.0], [0.0, 1.5, 0.5, -1.0]], np.float32)
PLAIN = RouterConfig(num_experts=4, top_k=2)
SIGMOID = replace(PLAIN, score="sigmoid")
ONE_KEPT = replace(PLAIN, groups=Groups(count=2, kept=1))
TWO_KEPT = replace(PLAIN, groups=Groups(count=2, kept=2))
SUMMED = replace(PLAIN, renormalize=Renormalize())
WHOLE = ("layout.well-formed", "layout.dtypes", "layout.contiguous", "weights.dtype")
"""Clauses that check something of an answer without tokens."""
ALSO_WHOLE = ("robustness.answers", "robustness.empty-batch", "invariance.repeatable")
UNTOUCHED = ("invariance.inputs-unchanged", "invariance.float-mode-unchanged")


def case(config: RouterConfig = PLAIN, hidden: np.ndarray = ROWS, **arrays: Any) -> Case:
    inputs = RouterInputs(hidden=hidden, gate_weight=np.eye(4, dtype=np.float32), **arrays)
    return Case(config=config, inputs=inputs)


BIASED = {"selection_bias": [0.5, 0.0, 0.0, 0.0]}
EMPTY, NAN = ROWS[:0], np.full_like(ROWS, np.nan)
NOTHING: dict[str, tuple[str, Case, str]] = {
    "groups that are not all kept": ("groups.all-kept", case(ONE_KEPT), "does not keep every"),
    "a bias that is not zero": (
        "selection.zero-bias-is-no-bias",
        case(SIGMOID, **BIASED),
        "no selection bias of zeros",
    ),
    "weights without a sum": ("weights.sum", case(), "not renormalised"),
    "weights that are scaled": (
        "weights.sum",
        case(SUMMED, per_expert_scale=[1.0, 2.0, 1.0, 1.0]),
        "per_expert_scale",
    ),
    "no token": ("selection.valid-top-k", case(hidden=EMPTY), "no tokens"),
    "no token to group": ("groups.ragged-rejected", case(ONE_KEPT, EMPTY), "no tokens"),
    "no token next to a NaN": ("robustness.nan-row-apart", case(hidden=EMPTY), "no tokens"),
    "no token to refuse": ("robustness.rejects-bad-config", case(hidden=EMPTY), "no tokens"),
    "nothing unclaimed": ("robustness.rejects-unclaimed", case(), "are claimed"),
    "only undefined weights": ("weights.match", case(hidden=NAN), "no token whose scores"),
}
OUTSIDE: dict[str, tuple[str, Case, str]] = {
    "no groups": ("groups.kept-only", case(), "the clause is about groups=True, "),
    "another score": ("invariance.logit-shift", case(SIGMOID), "the clause is about score="),
    "no bias": ("weights.unbiased", case(SIGMOID), "the clause is about selection_bias="),
}


@pytest.mark.parametrize("name", NOTHING)
def test_a_replay_in_which_nothing_is_checked_is_inconclusive(name: str) -> None:
    clause, tried, words = NOTHING[name]
    replayed = replay_case(REFERENCE, CLAUSES[clause], tried)
    assert replayed.status == "inconclusive", replayed
    assert replayed.message.startswith("the clause has nothing to check in this case: ")
    assert words in replayed.message


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_replay_of_what_the_clause_is_not_about_is_unsupported(name: str) -> None:
    clause, tried, words = OUTSIDE[name]
    replayed = replay_case(REFERENCE, CLAUSES[clause], tried)
    assert replayed.status == "unsupported", replayed
    assert words in replayed.message


@pytest.mark.parametrize("id_", [each.id for each in CLAUSES.values() if each.method == "route"])
def test_a_case_without_tokens_is_checked_by_clauses_about_whole_calls_alone(id_: str) -> None:
    replayed = replay_case(REFERENCE, CLAUSES[id_], case(hidden=EMPTY))
    checked = {*WHOLE, *ALSO_WHOLE, *UNTOUCHED}
    assert (replayed.status == "pass") == (id_ in checked), replayed


@pytest.mark.parametrize(
    ("clause", "claims"),
    [
        ("invariance.batch-split", {"limits": Limits(max_tokens=1)}),
        ("invariance.token-order", {}),
        ("selection.bias-placement", {"claims": (Claim(selection_bias=("gate",)),)}),
    ],
)
def test_a_part_that_can_be_checked_is_a_verdict(clause: str, claims: dict[str, Any]) -> None:
    tried = case(SIGMOID, ROWS[:1], **BIASED)
    assert replay_case(Narrow(**claims), CLAUSES[clause], tried).status == "pass"


class TestExitCode:
    @pytest.fixture
    def path(self, tmp_path: Path) -> str:
        save_case(case(), tmp_path / "case.json", clause="weights.sum")
        return str(tmp_path / "case.json")

    def test_nothing_checked_is_no_success(
        self, path: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["replay", path, "--no-isolate"]) == 1
        out = capsys.readouterr().out.splitlines()
        assert out[0].startswith("inconclusive  reference weights.sum: the clause has nothing to")
        assert out[-1] == "nothing was checked"

    def test_neither_is_a_case_that_no_adapter_claims(
        self, path: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        options = ["--no-isolate", "--clause=groups.kept-only"]
        assert main(["replay", path, "reference", "torch", *options]) == 1
        assert capsys.readouterr().out.splitlines()[-1] == "nothing was checked"

    def test_a_clause_that_passes_next_to_it_is_one(self, path: str) -> None:
        assert main(["replay", path, "--no-isolate", "--clause=weights.s*"]) == 0


class TestInARun:
    """What was not checked has shown nothing."""

    @staticmethod
    def checked(clause: Clause, adapter: Any = REFERENCE) -> Any:
        return check_clause(adapter, clause, Plan(clauses=(clause,), max_examples=10))

    def test_an_event_of_a_case_that_was_not_checked_is_not_witnessed(self) -> None:
        def never(trial: Any) -> None:
            raise Unchecked("it is of no use")

        result = self.checked(replace(CLAUSES["weights.match"], check=never))
        assert "witnessed" not in result.events.values()
        assert (result.status, result.message) == (
            "unsupported",
            "nothing to check: it is of no use",
        )

    def test_what_only_drawn_cases_can_check_is_a_verdict(self) -> None:
        def drawn_alone(trial: Any) -> None:
            if trial.case.recipe == "constructed":
                raise Unchecked("it is of no use")

        result = self.checked(replace(CLAUSES["layout.dtypes"], check=drawn_alone))
        assert (result.status, result.events["any-case"]) == ("pass", "witnessed")

    def test_sums_that_are_all_scaled_leave_nothing_to_check(self) -> None:
        scaled = Narrow(claims=(Claim(per_expert_scale=(True,)),))
        result = self.checked(CLAUSES["weights.sum"], scaled)
        assert result.status == "unsupported"
        assert result.message == "nothing to check: per_expert_scale changes the sums"


def test_a_witness_in_which_nothing_is_checked_shows_nothing() -> None:
    witnesses = (case(), case(SUMMED))
    listed = Divergence(
        id="sums",
        adapters=("reference",),
        clause="weights.sum",
        reason="it sums to something else",
        link="https://example.org",
        witnesses=witnesses,
    )
    replays = {
        id(witnesses[0]): Replayed(status="inconclusive"),
        id(witnesses[1]): Replayed(status="fail"),
    }
    assert standings([listed], lambda tried: replays[id(tried)]) == {"sums": "there"}
