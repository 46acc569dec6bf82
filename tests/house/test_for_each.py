"""A test of many things says of each that fails what a test of its own would."""

from __future__ import annotations

import pytest
from for_each import for_each


@for_each({"small": 1, "large": 1000})
def _passes(number: int) -> None:
    assert number > 0


@for_each(lambda: {"small": 1, "large": 1000, "huge": 10**6})
def _fails(number: int) -> None:
    assert number < 10, f"{number} is too much"


@for_each({"small": 1, "none": 0, "less": -1})
def _raises(number: int) -> None:
    assert 1 / number > 0


def test_all_that_fail_are_reported_by_name() -> None:
    _passes()
    with pytest.raises(pytest.fail.Exception) as failed:
        _fails()
    for line in ("2 of 3 fail:", "large: 1000 is too much", "huge: 1000000 is too much"):
        assert line in str(failed.value)


def test_errors_come_with_the_names_of_what_they_are_about() -> None:
    with pytest.raises(ExceptionGroup, match="2 of 3 fail") as failed:
        _raises()
    zero, less = failed.value.exceptions
    assert isinstance(zero, ZeroDivisionError)
    assert (zero.__notes__, less.__notes__) == (["in the test of none"], ["in the test of less"])


def test_nothing_to_test_is_no_pass() -> None:
    with pytest.raises(AssertionError, match="there is nothing to test"):
        for_each({})(lambda thing: None)()
