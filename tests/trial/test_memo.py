"""The memo: equal contents are computed once, others are not mistaken for them."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest

from moe_routing.conformance.calls.memory import with_fresh_arrays
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.generators.construct import take_tokens
from moe_routing.conformance.generators.inputs import with_strides
from moe_routing.conformance.judge import Answer, Bounds, Verdict, judge
from moe_routing.conformance.trial import memo
from moe_routing.conformance.trial.base import Excused
from moe_routing.conformance.trial.memo import CaseMemo
from moe_routing.conformance.trial.trial import Trial
from moe_routing.implementations import Capabilities, Numerics, load_adapter
from moe_routing.reference import Renormalize, RouterConfig, RouterInputs, route

PLAIN = Numerics()
ROWS = [[1.0, 0.25, -0.5, 2.0], [0.0, 1.5, 0.5, -1.0], [-1.0, 0.75, 2.5, 0.25]]


def case_of(rows: list[list[float]] = ROWS, **parts: object) -> Case:
    config = RouterConfig(num_experts=4, top_k=2, score="sigmoid", renormalize=Renormalize())
    gate = np.eye(4, dtype=np.float32)
    return Case(config=config, inputs=RouterInputs(hidden=rows, gate_weight=gate, **parts))


def again(case: Case) -> Case:
    """Return other objects of equal contents."""
    return replace(case, config=replace(case.config), inputs=with_fresh_arrays(case.inputs))


def answer_to(case: Case, **changes: object) -> Answer:
    right = route(case.config, case.inputs)
    return replace(Answer(weights=right.weights, expert_ids=right.expert_ids), **changes)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[Answer]:
    """Return the answers that reach the judge, as they come."""
    seen: list[Answer] = []

    def recording(bounds: Bounds, answer: Answer, **others: object) -> Verdict:
        seen.append(answer)
        return judge(bounds, answer, **others)

    monkeypatch.setattr(memo, "judge", recording)
    return seen


class TestBounds:
    def test_equal_contents_have_the_same_bounds(self) -> None:
        memo, case = CaseMemo(), case_of()
        first = memo.bounds(case, PLAIN)
        assert memo.bounds(again(case), PLAIN) is first
        assert memo.bounds(take_tokens(case, np.arange(3)), Numerics()) is first

    @pytest.mark.parametrize(
        "other",
        [
            case_of([[1.0, 0.25, -0.5, 2.0], [0.0, 1.5, 0.5, -1.0], [-1.0, 0.75, 2.5, 0.125]]),
            case_of([*ROWS, ROWS[0]]),
            case_of(ROWS[:2]),
            case_of(dtype="bfloat16"),
            case_of(gate_bias=[0.0] * 4),
            case_of(selection_bias=[0.0] * 4),
            replace(case_of(), config=replace(case_of().config, scale=2.0)),
            replace(case_of(), config=replace(case_of().config, scale=-0.0)),
            replace(case_of(), config=replace(case_of().config, renormalize=None)),
        ],
        ids=["value", "longer", "shorter", "dtype", "gate-bias", "bias", "scale", "sign", "rule"],
    )
    def test_other_contents_have_bounds_of_their_own(self, other: Case) -> None:
        memo = CaseMemo()
        memo.bounds(case_of(), PLAIN)
        bounds = memo.bounds(other, PLAIN)
        assert bounds.config == other.config
        assert bounds.inputs is other.inputs
        fresh = Bounds(other.config, other.inputs, PLAIN)
        assert np.array_equal(bounds.logits.permitted.lo, fresh.logits.permitted.lo)

    def test_biases_in_another_place_are_other_contents(self) -> None:
        memo = CaseMemo()
        for place in ("gate", "block", "statics"):
            case = case_of(selection_bias=[1.0] * 4, selection_bias_on=place)
            assert memo.bounds(case, PLAIN).inputs.selection_bias_on == place

    def test_declared_numerics_have_bounds_of_their_own(self) -> None:
        memo, coarse = CaseMemo(), Numerics(sigmoid="absolute")
        exact = memo.bounds(case_of(), PLAIN)
        assert memo.bounds(case_of(), coarse).numerics == coarse
        assert memo.bounds(case_of(), PLAIN) is exact

    def test_another_stride_is_judged_as_it_lies(self) -> None:
        memo, case = CaseMemo(), case_of()
        strided = replace(case, inputs=with_strides(case.inputs))
        rows, spaced = memo.bounds(case, PLAIN), memo.bounds(strided, PLAIN)
        assert rows.inputs.hidden.flags.c_contiguous
        assert not spaced.inputs.hidden.flags.c_contiguous
        assert np.array_equal(rows.reference.weights, spaced.reference.weights)
        assert memo.bounds(again(strided), PLAIN) is spaced

    def test_no_tokens_are_contents_too(self) -> None:
        memo, empty = CaseMemo(), take_tokens(case_of(), np.zeros(0, np.int64))
        assert memo.bounds(empty, PLAIN) is memo.bounds(again(empty), PLAIN)


class TestVerdicts:
    def test_an_equal_answer_is_judged_once(self, judged: list[Answer]) -> None:
        memo, case = CaseMemo(), case_of()
        bounds = memo.bounds(case, PLAIN)
        verdicts = [memo.verdict(bounds, answer_to(case), "none") for _ in range(3)]
        assert len(judged) == 1
        assert verdicts[0] is verdicts[1] is verdicts[2]
        assert verdicts[0].right

    def test_an_answer_of_nan_is_judged_once(self, judged: list[Answer]) -> None:
        memo, case = CaseMemo(), case_of()
        bounds, lost = memo.bounds(case, PLAIN), np.full((3, 2), np.nan)
        wrong = [answer_to(case, weights=lost.copy()) for _ in range(2)]
        first, second = (memo.verdict(bounds, answer, "none") for answer in wrong)
        assert len(judged) == 1
        assert first is second
        assert not first.weights.any()

    @pytest.mark.parametrize(
        ("change", "mode"),
        [
            ({"weights": np.full((3, 2), 0.5)}, "none"),
            ({"expert_ids": np.array([[0, 1]] * 3)}, "none"),
            ({"weights_dtype": "bfloat16"}, "none"),
            ({"logits": np.array(ROWS)}, "copy"),
            ({"logits": np.array(ROWS)}, "routed"),
        ],
        ids=["weights", "ids", "dtype", "copied", "routed"],
    )
    def test_other_answers_are_judged_apart(
        self, judged: list[Answer], change: dict[str, object], mode: str
    ) -> None:
        memo, case = CaseMemo(), case_of()
        bounds = memo.bounds(case, PLAIN)
        memo.verdict(bounds, answer_to(case), "none")
        verdict = memo.verdict(bounds, answer_to(case, **change), mode)
        assert len(judged) == 2
        assert verdict.answer is judged[1]
        assert verdict.routed == (mode == "routed")

    def test_logits_are_routed_or_not_and_the_answer_is_judged_as_either(
        self, judged: list[Answer]
    ) -> None:
        memo, case = CaseMemo(), case_of()
        bounds, answer = memo.bounds(case, PLAIN), answer_to(case, logits=np.array(ROWS))
        routed = {mode: memo.verdict(bounds, answer, mode).routed for mode in ("copy", "routed")}
        assert routed == {"copy": False, "routed": True}

    def test_other_bounds_judge_the_same_answer_apart(self, judged: list[Answer]) -> None:
        memo, case = CaseMemo(), case_of()
        raised = case_of(selection_bias=[0.0, 9.0, 9.0, 0.0])
        right, wrong = (
            memo.verdict(memo.bounds(each, PLAIN), answer_to(case), "none")
            for each in (case, raised)
        )
        assert right.right
        assert not wrong.selection.all()


class TestTrials:
    def test_a_trial_and_what_is_derived_from_it_share_bounds(self) -> None:
        trial = Trial(load_adapter("reference"), case_of())
        same, other = trial.of(again(trial.case)), trial.of(take_tokens(trial.case, np.array([0])))
        assert same.bounds is trial.bounds
        assert other.bounds is not trial.bounds
        assert other.of(again(trial.case)).bounds is trial.bounds

    def test_many_adapters_on_one_bench_are_judged_once(self, judged: list[Answer]) -> None:
        memo = CaseMemo()
        trials = [Trial(load_adapter("reference"), case_of(), memo=memo) for _ in range(5)]
        assert all(trial.verdict.right for trial in trials)
        assert len({id(trial.native) for trial in trials}) == 5, "each was called itself"
        assert len(judged) == 1

    def test_trials_apart_share_nothing(self) -> None:
        first, second = (Trial(load_adapter("reference"), case_of()) for _ in range(2))
        assert first.bounds is not second.bounds

    def test_whether_a_derived_case_is_known_follows_from_its_trial(self) -> None:
        seen: list[Trial] = []

        def is_known(trial: Trial) -> bool:
            seen.append(trial)
            return trial.bounds.inputs.num_tokens == 1

        trial = Trial(load_adapter("reference"), case_of(), is_known=is_known)
        assert trial.of(again(trial.case)).bounds is seen[0].bounds
        with pytest.raises(Excused):
            trial.of(take_tokens(trial.case, np.array([0])))

    def test_nothing_outlives_the_case(self) -> None:
        trial = Trial(load_adapter("reference"), case_of())
        refs = [weakref.ref(each) for each in (trial.memo, trial.bounds, trial.verdict)]
        del trial
        gc.collect()
        assert [ref() for ref in refs] == [None] * 3

    def test_a_large_read_only_view_of_memory_that_changes_is_read_anew(self) -> None:
        """So does the call that has new values in the arrays of an earlier one."""
        memory = np.ones((2**13, 3))
        view = memory.view()
        view.flags.writeable = False
        once = memo.contents_of({"hidden": view})
        memory[0, 0] = 2.0
        assert memo.contents_of({"hidden": view}) != once

    def test_capabilities_decide_the_numerics(self) -> None:
        class Coarse:
            name = "coarse"

            def capabilities(self) -> Capabilities:
                return Capabilities(numerics=Numerics(sigmoid="absolute"))

            def route(self, config: RouterConfig, inputs: RouterInputs) -> object:
                return route(config, inputs)

        memo = CaseMemo()
        plain = Trial(load_adapter("reference"), case_of(), memo=memo)
        assert Trial(Coarse(), case_of(), memo=memo).bounds is not plain.bounds
