"""Reductions of small arrays: the same as NumPy's, of large ones too."""

from __future__ import annotations

import numpy as np
import pytest

from moe_routing.reference.quick import at_columns, every, some, surely_finite


@pytest.mark.parametrize("mask", [[], [True], [False], [[True, False]], [[True, True]]])
def test_masks_are_counted(mask: list[object]) -> None:
    read = np.array(mask, dtype=bool)
    assert some(read) is bool(read.any())
    assert every(read) is bool(read.all())


@pytest.mark.parametrize("size", [0, 3, 5000])
def test_what_is_not_finite_is_seen(size: int) -> None:
    values = np.ones(size)
    assert surely_finite(values)
    for bad in (np.nan, np.inf, -np.inf):
        assert not surely_finite(np.append(values, bad))


def test_columns_are_taken_of_each_row() -> None:
    values, ids = np.arange(12.0).reshape(3, 4), np.array([[3, 0], [1, 1], [2, -1]])
    assert at_columns(values, ids).tolist() == np.take_along_axis(values, ids, axis=1).tolist()
    assert at_columns(values[:0], ids[:0]).shape == (0, 2)
