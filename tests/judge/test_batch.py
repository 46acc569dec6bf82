"""Answers that are judged together get the verdicts that each gets alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
from nightly import nightly

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.checking.search import draw_cases
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.generators.construct import take_tokens
from moe_routing.conformance.judge import Answer, Bounds, Verdict, batch, judge
from moe_routing.conformance.judge.batch import judge_all
from moe_routing.conformance.judge.later import SelectionBounds
from moe_routing.conformance.judge.numerics import without_idle
from moe_routing.conformance.trial.boundary import Malformed
from moe_routing.conformance.trial.call import Raised
from moe_routing.conformance.trial.memo import CaseMemo
from moe_routing.conformance.trial.trial import Trial
from moe_routing.conformance.zoo import HONEST, MUTANTS
from moe_routing.implementations import Capabilities, Numerics

DRAWN_FOR = ("selection.valid-top-k", "groups.kept-only", "robustness.infinite-logit")
"""Clauses whose cases, together, have every size, group, fill, table and non-finite number."""

DRAWS = nightly(5, 20)

RESIDENTS = [each.adapter() for each in (*MUTANTS.values(), *HONEST.values())]
NUMERICS = (
    Numerics(),
    *(
        Numerics(**{name: value})
        for name, value in (
            ("multiply", "tf32"),
            ("sigmoid", "absolute"),
            ("softplus", "absolute"),
            ("flush_subnormals", True),
            ("select_bits", 13),
        )
    ),
)


def cases_of(clause: str, count: int = DRAWS) -> list[Case]:
    """Return drawn cases of a clause, and one of them without its tokens."""
    found: list[Case] = []
    about = CLAUSES[clause]
    draw_cases(
        about,
        about.narrowed(Capabilities()),
        suite_seed=7,
        max_examples=count,
        enough=lambda case: found.append(case) or False,
    )
    return [*found, take_tokens(found[-1], ())]


def answers_to(case: Case, logits: str) -> Iterator[Answer]:
    """Yield what the residents of the zoo answer, right and wrong, whose logits are such."""
    for resident in RESIDENTS:
        if resident.capabilities().logits != logits:
            continue
        trial = Trial(resident, case)
        try:
            yield trial.received.answer
        except (Raised, Malformed):
            continue


def shifted(answer: Answer, num_experts: int) -> Answer:
    """Return an answer that names the expert next to each of its own."""
    return replace(answer, expert_ids=(answer.expert_ids + 1) % num_experts)


def same_bits(one: np.ndarray, other: Any) -> bool:
    """Return at a glance whether nothing differs; NumPy's own comparison takes ten times longer."""
    if not isinstance(other, np.ndarray) or (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    return one.tobytes() == other.tobytes()


def assert_same(one: Any, other: Any, where: str) -> None:
    """Compare two values part by part, arrays to the bit."""
    if isinstance(one, np.ndarray):
        if not same_bits(one, other):
            np.testing.assert_array_equal(one, other, err_msg=where, strict=True)
    elif isinstance(one, SelectionBounds):
        for name in ("logits", "operated", "scores", "competing"):
            assert_same(getattr(one, name), getattr(other, name), f"{where}.{name}")
    elif is_dataclass(one) and not isinstance(one, (Bounds, Answer)):
        names = [field.name for field in fields(one)]
        for name in ["later" if name == "made" else name for name in names]:
            assert_same(getattr(one, name), getattr(other, name), f"{where}.{name}")
    elif isinstance(one, (Bounds, Answer)):
        assert one is other, where
    else:
        assert one == other, where


@pytest.mark.parametrize("clause", DRAWN_FOR)
@pytest.mark.parametrize("logits", ["none", "routed"])
def test_a_verdict_is_the_same_alone_and_together(clause, logits):
    wrong = compared = 0
    for case in cases_of(clause):
        bounds = Bounds(case.config, case.inputs, Numerics())
        answers = [*answers_to(case, logits)]
        answers.append(shifted(answers[0], case.config.num_experts))
        made = judge_all(bounds, answers, logits=logits)
        for answer, verdict in zip(answers, made, strict=True):
            alone = judge(bounds, answer, logits=logits)
            assert_same(verdict, alone, f"{case.size} {case.config}: verdict")
            wrong += not alone.right
            compared += 1
    assert compared > 50, "too few answers to say anything"
    assert wrong > 0, "wrong answers, too, have to be told apart"


def test_every_answer_is_judged_however_large_the_call(monkeypatch: pytest.MonkeyPatch):
    case = next(c for c in cases_of(DRAWN_FOR[0]) if c.inputs.num_tokens > 1)
    bounds = Bounds(case.config, case.inputs, Numerics())
    answers = [*islice(answers_to(case, "none"), 7)]
    sizes: list[int] = []

    def counted(bounds: Bounds, answer: Answer, **others: Any) -> Verdict:
        sizes.append(len(answer.weights))
        return judge(bounds, answer, **others)

    monkeypatch.setattr(batch, "judge", counted)
    monkeypatch.setattr(batch, "_LARGE", 3 * case.inputs.num_tokens * case.config.num_experts)
    assert [v.answer for v in judge_all(bounds, answers)] == answers
    tokens = case.inputs.num_tokens
    assert sizes == [3 * tokens, 3 * tokens, tokens]


def named(bounds: Bounds) -> dict[str, Any]:
    """Return all that a judge reads of bounds, for the tokens that it judges."""
    rows = np.flatnonzero(bounds.judged)
    return {
        "judged": bounds.judged,
        "permitted": bounds.logits.permitted.rows(rows),
        "later": bounds.from_reference.rows(rows),
    }


@pytest.mark.parametrize(
    "numerics", NUMERICS, ids=lambda each: ",".join(each.declared()) or "plain"
)
@pytest.mark.parametrize("clause", DRAWN_FOR)
def test_numerics_that_do_not_matter_change_nothing(clause: str, numerics: Numerics):
    dropped = 0
    for case in cases_of(clause):
        matter = without_idle(case.config, case.inputs, numerics)
        dropped += matter != numerics
        declared = Bounds(case.config, case.inputs, numerics)
        expected = named(declared)
        for name, value in named(Bounds(case.config, case.inputs, matter)).items():
            assert_same(value, expected[name], f"{case.size} {case.config}: {name}")
    always = numerics in (Numerics(), Numerics(select_bits=13))
    assert (dropped == 0) == always


@pytest.mark.parametrize("numerics", NUMERICS[1:], ids=lambda each: each.declared()[0])
def test_bounds_that_share_with_others_are_those_of_their_own(numerics: Numerics):
    for case in cases_of(DRAWN_FOR[0]):
        bench = CaseMemo()
        bench.bounds(case, Numerics())
        shared = named(bench.bounds(case, numerics))
        expected = named(Bounds(case.config, case.inputs, numerics))
        for name, value in shared.items():
            assert_same(value, expected[name], f"{case.size} {case.config}: {name}")
