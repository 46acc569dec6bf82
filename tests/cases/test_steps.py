"""The ``steps`` of a case file: an array lies in memory of its own, with every value in place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.cases.files import CaseError, case_to_json, load_case, save_case
from moe_routing.reference import RouterConfig, RouterInputs

HIDDEN = np.arange(6, dtype=np.float32).reshape(2, 3)


def case(hidden: np.ndarray) -> Case:
    inputs = RouterInputs(hidden=hidden, gate_weight=np.eye(hidden.shape[1]))
    return Case(config=RouterConfig(num_experts=hidden.shape[1], top_k=1), inputs=inputs)


def written(path: Path, steps: Any, hidden: np.ndarray = HIDDEN) -> Path:
    data = case_to_json(case(hidden))
    data["inputs"]["hidden"]["steps"] = steps
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([-100_000_000, 200_000_000], "should be 2 integers of 0 or more, one an axis"),
        ([3, -1], "should be 2 integers of 0 or more, one an axis"),
        ([3], "should be 2 integers of 0 or more, one an axis"),
        ([3, 1, 1], "should be 2 integers of 0 or more, one an axis"),
        ([2.5, 1], "should be 2 integers of 0 or more, one an axis"),
        ([True, 1], "should be 2 integers of 0 or more, one an axis"),
        ("ab", "should be 2 integers of 0 or more, one an axis"),
        ({"0": 3, "1": 1}, "should be 2 integers of 0 or more, one an axis"),
        ([1_000_000_000_000, 1], "should lie within 134217728 numbers"),
        ([10**30, 1], "should lie within 134217728 numbers"),
        ([0, 1], "should have a place for each value"),
        ([1, 1], "should have a place for each value"),
    ],
)
def test_steps_that_no_array_has_are_refused_in_one_line(
    steps: Any, words: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "case.json", steps)
    with pytest.raises(CaseError) as error:
        load_case(path)
    start = f"Cannot read the case file {path}: hidden has the steps {steps!r}, but "
    assert str(error.value) == f"{start}{words}"


@pytest.mark.parametrize("steps", [[3, 1], [1, 2], [7, 2], [100, 1], [4, 9]])
def test_steps_that_give_every_value_a_place_are_kept(steps: list[int], tmp_path: Path) -> None:
    loaded = load_case(written(tmp_path / "case.json", steps))[0].inputs.hidden
    assert (loaded == HIDDEN).all()
    assert [step // loaded.itemsize for step in loaded.strides] == steps


def test_an_axis_of_one_may_have_any_step_that_is_no_larger(tmp_path: Path) -> None:
    path = tmp_path / "case.json"
    assert load_case(written(path, [2**20, 1], HIDDEN[:1]))[0].inputs.hidden.shape == (1, 3)
    with pytest.raises(CaseError, match="should lie within"):
        load_case(written(path, [2**62, 1], HIDDEN[:1]))


@pytest.mark.parametrize("steps", [[0, 1], [1, 1]])
def test_values_that_are_alike_may_share_a_place(steps: list[int], tmp_path: Path) -> None:
    loaded = load_case(written(tmp_path / "case.json", steps, np.zeros((2, 3), np.float32)))[0]
    assert not loaded.inputs.hidden.any()


def test_what_shares_a_place_must_be_alike_to_the_bit(tmp_path: Path) -> None:
    hidden = np.float32([[0.0, np.nan], [-0.0, np.nan]])
    with pytest.raises(CaseError, match="should have a place for each value"):
        load_case(written(tmp_path / "case.json", [0, 1], hidden))


def test_an_array_spread_farther_than_is_read_is_written_in_rows(tmp_path: Path) -> None:
    far = np.lib.stride_tricks.as_strided(
        np.zeros(2**27 + 2, np.float32), (2, 3), (4 * 2**27, 4), writeable=False
    )  # no page of which is touched but the ends
    save_case(case(far), tmp_path / "case.json")
    loaded = load_case(tmp_path / "case.json")[0].inputs.hidden
    assert loaded.flags.c_contiguous
