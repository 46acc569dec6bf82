"""Memory layouts: what is made of a case lies in memory as the case does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance import Case
from moe_routing.conformance.calls.memory import laid_like, strided
from moe_routing.conformance.cases.kinds import kind_of
from moe_routing.conformance.clauses.relations import reverse_experts
from moe_routing.conformance.generators.construct import take_tokens, with_inputs
from moe_routing.conformance.generators.inputs import in_rows, with_strides
from moe_routing.conformance.generators.neighbours import neighbours
from moe_routing.conformance.generators.shared import make_shared_case
from moe_routing.implementations import Limits
from moe_routing.reference import Groups, RmsNorm, RouterConfig, RouterInputs

RNG = np.random.default_rng(0)
TABLE = RNG.integers(-8, 9, (7, 6)) / 4.0
PARTS: dict[str, Any] = {
    "selection_bias": np.array([0.0, 1e10, -np.inf, 0.25, -4096.0, 1.0]),
    "per_expert_scale": np.array([1.0, 0.5, 2.0, 1.0, 0.75, 1.0]),
}
LOST = np.where(np.arange(6) == 2, -np.inf, TABLE)


def routed(config: RouterConfig, inputs: RouterInputs) -> Case:
    return Case(config=config, inputs=inputs, recipe="of a test")


CASES: dict[str, Any] = {
    "a gate": routed(
        RouterConfig(num_experts=6, top_k=3, score="sigmoid"),
        RouterInputs(
            hidden=RNG.integers(-8, 9, (7, 5)) / 8.0,
            gate_weight=RNG.integers(-8, 9, (6, 5)) / 8.0,
            gate_delta=RNG.integers(-1, 2, (6, 5)),
            gate_bias=[-np.inf, 0.0, 0.25, 1.0, -1.0, 0.5],
            dtype="bfloat16",
            **PARTS,
        ),
    ),
    "an identity gate": routed(
        RouterConfig(num_experts=6, top_k=2, input_norm=RmsNorm()),
        RouterInputs(
            hidden=TABLE,
            gate_weight=np.eye(6),
            gate_delta=np.eye(6)[::-1],
            hidden_scale=np.ones(6),
        ),
    ),
    "given logits": routed(
        RouterConfig(num_experts=6, top_k=2), RouterInputs.from_logits(LOST, **PARTS)
    ),
    "groups": routed(
        RouterConfig(num_experts=6, top_k=2, groups=Groups(count=3, kept=2)),
        RouterInputs.from_logits(TABLE),
    ),
    "a table": routed(
        RouterConfig(num_experts=6, top_k=2),
        RouterInputs(
            hidden=TABLE,
            gate_weight=np.eye(6),
            expert_table=np.arange(8).reshape(4, 2) % 6,
            token_ids=np.arange(7) % 4,
        ),
    ),
    "shared experts": make_shared_case(
        kind="singular", gated=True, dtype="float32", tokens=7, hidden=6, width=5, seed=3
    ),
}


def laid_out(case: Any, layout: str) -> Any:
    if layout == "rows":
        return replace(case, inputs=in_rows(case.inputs))
    if layout == "spaced":
        spaced = {name: gaps(array) for name, array in case.inputs.arrays().items()}
        return replace(case, inputs=replace(case.inputs, **spaced))
    return replace(case, inputs=with_strides(case.inputs, transposed=layout))


def gaps(array: np.ndarray) -> np.ndarray:
    return strided(array, [2] if array.ndim == 1 else [2 * array.shape[1] + 3, 2])


def lies(array: np.ndarray) -> str:
    """Name the memory layout of an array, where its strides show one."""
    if array.flags.c_contiguous:
        return "in rows"
    steps = np.array(array.strides) // array.itemsize
    wide = [step for step, size in zip(steps, array.shape, strict=True) if size > 1]
    transposed = wide != sorted(wide, reverse=True)
    return f"{'transposed, ' * transposed}{'with gaps' if min(wide) > 1 else 'dense'}"


def small(array: np.ndarray) -> bool:
    """Whether an array has an axis whose stride shows nothing."""
    return array.size == 0 or min(array.shape) == 1


def proposals(case: Any) -> Iterator[Any]:
    """Yield what is proposed for a case, and for some of that what is proposed next."""
    for reduction in kind_of(case).reductions:
        for number, smaller in enumerate(reduction(case)):
            yield smaller
            if number == 0:
                yield from (each for again in kind_of(case).reductions for each in again(smaller))


@pytest.mark.parametrize("name", CASES)
def test_whatever_is_proposed_for_a_case_in_rows_lies_in_rows(name: str) -> None:
    made = [*proposals(laid_out(CASES[name], "rows"))]
    assert len(made) > 50
    for smaller in made:
        for field, array in smaller.inputs.arrays().items():
            assert array.flags.c_contiguous, (field, array.shape, array.strides)


def only_laid_out_anew(one: Any, other: Any) -> bool:
    """Whether two cases are equal in all but how their arrays lie."""
    first, second = one.inputs.arrays(), other.inputs.arrays()
    same = first.keys() == second.keys() and one.inputs.dtype == other.inputs.dtype
    return (
        same
        and one.config == other.config
        and all(np.array_equal(first[name], second[name]) for name in first)
    )


@pytest.mark.parametrize("layout", ["hidden", "gate_weight", "spaced"])
@pytest.mark.parametrize("name", CASES)
def test_a_reduction_changes_how_arrays_lie_only_to_lay_them_out_in_rows(
    name: str, layout: str
) -> None:
    case = laid_out(CASES[name], layout)
    before = {field: lies(array) for field, array in case.inputs.arrays().items()}
    strided_ = [field for field in before if before[field] != "in rows"]
    in_rows_ = []
    for smaller in (each for reduction in kind_of(case).reductions for each in reduction(case)):
        arrays = smaller.inputs.arrays()
        after = {f: lies(array) for f, array in arrays.items() if not small(array)}
        changed = {field: after[field] for field in after if after[field] != before[field]}
        if only_laid_out_anew(case, smaller):
            in_rows_.append([*changed])
            assert {*changed.values()} <= {"in rows"}
        else:
            assert changed == {}
    wanted = [strided_, *([field] for field in strided_)]
    assert in_rows_ == ([] if name == "shared experts" else wanted), "all at once, then one alone"


DERIVED: dict[str, Callable[[Case], list[Case]]] = {
    "tokens in another order": lambda case: [take_tokens(case, range(7)[::-1])],
    "more tokens": lambda case: [take_tokens(case, np.arange(257) % 7)],
    "no tokens": lambda case: [take_tokens(case, ())],
    "experts renamed": lambda case: [reverse_experts(case)],
    "other numbers": lambda case: [with_inputs(case, hidden=np.asfortranarray(case.inputs.hidden))],
    "neighbours": lambda case: [*neighbours(case, Limits(max_tokens=9, max_experts=8))],
}


@pytest.mark.parametrize("layout", ["rows", "hidden", "gate_weight", "spaced"])
@pytest.mark.parametrize("way", DERIVED)
def test_what_is_derived_from_a_case_lies_as_it_does(way: str, layout: str) -> None:
    for name in ("a gate", "given logits", "a table"):
        case = laid_out(CASES[name], layout)
        before = {field: lies(array) for field, array in case.inputs.arrays().items()}
        derived = DERIVED[way](case)
        assert derived
        for other in derived:
            for field, array in other.inputs.arrays().items():
                if not small(array):
                    assert lies(array) == before.get(field, "in rows"), field


class TestLaidLike:
    @pytest.mark.parametrize("shape", [(3, 2), (7, 5), (257, 5), (1, 1), (0, 5), (7, 1)])
    @pytest.mark.parametrize("steps", [[5, 1], [1, 7], [11, 2], [2, 15], [1000, 1], [1, 9], [0, 1]])
    def test_keeps_the_numbers_each_in_a_place_of_its_own(
        self, steps: list[int], shape: tuple[int, int]
    ) -> None:
        memory = np.zeros(10_000, np.float32)
        model = np.lib.stride_tricks.as_strided(memory, (7, 5), [4 * step for step in steps])
        values = np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape)
        laid = laid_like(values, model)
        np.testing.assert_array_equal(laid, values)
        if steps in ([5, 1], [0, 1]):  # of places that share memory there are not enough
            assert laid.flags.c_contiguous

    def test_keeps_the_gaps(self) -> None:
        for steps, kept in (([11, 2], [5, 2]), ([2, 15], [2, 7]), ([1, 9], [1, 5])):
            laid = laid_like(np.zeros((3, 2)), strided(np.zeros((7, 5)), steps))
            assert [step // 8 for step in laid.strides] == kept

    @pytest.mark.parametrize(
        "model", [np.zeros((7, 5))[::-1], np.zeros(3)[::2], np.zeros((0, 5)).T, np.zeros((1, 5))]
    )
    def test_lays_out_in_rows_what_cannot_lie_like_its_model(self, model: np.ndarray) -> None:
        assert laid_like(np.zeros((2, 3)).T, model).flags.c_contiguous
