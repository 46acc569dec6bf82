"""One call of a backend: what it changed of its inputs."""

from __future__ import annotations

import numpy as np
import pytest

from moe_routing.conformance.trial import call


@pytest.mark.parametrize("size", [4, 2**16])
@pytest.mark.parametrize("kind", ["f4", "f8", "i8", "bool", "c16"])
def test_arrays_of_one_kind_are_compared_bit_by_bit(size: int, kind: str) -> None:
    before = np.zeros(2 * size, kind)[::2]
    now = before.copy()
    assert call._same(now, before)
    now[-1] = 1
    assert not call._same(now, before)


@pytest.mark.parametrize("size", [4, 2**16])
def test_nan_is_itself_and_a_sign_of_zero_is_no_change(size: int) -> None:
    before = np.full(size, np.nan, np.float32)
    before[0] = 0.0
    now = before.copy()
    assert call._same(now, before)
    now[0] = -0.0
    assert call._same(now, before)
    now[1] = 0.0
    assert not call._same(now, before)
