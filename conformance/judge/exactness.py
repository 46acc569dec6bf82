"""Which logits no order of summation rounds (docs/spec/judging.md, "Exact cases")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from moe_routing.reference import RouterInputs
from moe_routing.reference.formats import FLOAT32, Bools, FloatFormat, Floats, Ids
from moe_routing.reference.quick import some

_NO_BIT = 2000  # beyond every exponent of float64
_BLOCK = 2**18  # logits that are looked at together: a temporary that caches hold
_HEAD = 32  # hidden columns; these alone mostly show that nothing in a row is exact

_FRACTION = 0x007FFFFF  # the bits of a float32 below its leading one
_INFINITY = 0x7F800000  # the bits of infinity, below those of every NaN


@dataclass(frozen=True, eq=False)
class Exactness:
    """What makes logits exact: their magnitudes, and a power of two that divides their terms.

    ``quantum [T, E]`` divides every product and term of a logit, wherever that logit may
    be exact; None where none may be. With M the ``magnitude [T, E]``, ``|x|.|W|`` and
    the other terms, every partial sum is a multiple of q of at most M, and a format of p
    bits holds all of those where M <= 2**p * q.
    """

    magnitude: Floats
    quantum: Floats | None

    @classmethod
    def of(cls, inputs: RouterInputs, magnitude: Floats, bias: Floats | None) -> Exactness:
        """Find the quanta of the products of hidden states with gate and delta, and of ``bias``.

        The first columns bound a row's quantum from above, so only rows that may be exact
        under that bound are read to their end.
        """
        matrices = [inputs.gate_weight]
        if inputs.gate_delta is not None:
            matrices.append(inputs.gate_delta)
        if inputs.gate_dtype == "float32" and (picks := _picked(inputs.hidden)) is not None:
            return cls(magnitude, _with_bias(_of_picks(inputs.hidden, picks, matrices), bias))
        x, *parts = _powers_of_heads([inputs.hidden, *matrices])
        a = reduce(np.minimum, parts)
        if inputs.hidden_size > _HEAD:
            tokens, experts = _hopeful(magnitude, x, a)
            if not tokens.any():
                return cls(magnitude, None)
            x[tokens] = lowest_powers(inputs.hidden[tokens], np.inf)
            a[experts] = reduce(
                np.minimum, [lowest_powers(each[experts], np.inf) for each in matrices]
            )
        return cls(magnitude, _with_bias(_product(x, a), bias))

    def rows(self, which: slice) -> Exactness:
        """Take the rows ``which``; what was found of the whole call stays."""
        quantum = None if self.quantum is None else self.quantum[which]
        return Exactness(self.magnitude[which], quantum)

    def within(self, form: FloatFormat) -> Bools:
        """Return which logits ``[T, E]`` are exact where sums are held in ``form``.

        Below its normal range nothing counts as exact.
        """
        if self.quantum is None:
            return np.zeros(self.magnitude.shape, dtype=bool)
        normal: Bools = (self.quantum >= form.tiny) | (self.magnitude == 0.0)
        return _fits(self.magnitude, self.quantum, form) & normal


def _with_bias(quantum: Floats, bias: Floats | None) -> Floats:
    if bias is None:
        return quantum
    return np.minimum(quantum, lowest_powers(bias.astype(np.float32)[:, None], np.inf))


def _picked(hidden: npt.NDArray[np.float32]) -> Ids | None:
    """Return the one column ``[T]`` that each row multiplies, None where some row has several."""
    used = hidden != 0.0
    if hidden.shape[1] == 0 or (np.count_nonzero(used, axis=1) > 1).any():
        return None
    columns: Ids = used.argmax(axis=1)
    return columns


def _of_picks(
    hidden: npt.NDArray[np.float32], picks: Ids, matrices: list[npt.NDArray[np.float32]]
) -> Floats:
    """Return what divides the one product of each row with each expert: its own numbers alone."""
    x = lowest_bit(hidden)
    found = []
    for matrix in matrices:
        bits = lowest_bit(matrix.reshape(-1, 1)).reshape(matrix.shape)
        found.append(np.ldexp(1.0, x[:, None] + bits[:, picks].T))
    quantum: Floats = np.minimum.reduce(found)
    return quantum


def _fits(magnitude: Floats, quantum: Floats, form: FloatFormat) -> Bools:
    """Return where ``form`` holds every multiple of the quantum up to the magnitude."""
    fits: Bools = magnitude <= quantum * 2.0**form.precision
    return fits


def _hopeful(magnitude: Floats, x: Floats, a: Floats) -> tuple[Bools, Bools]:
    """Return which tokens, and which experts, have a logit that fits; block by block of rows."""
    tokens, experts = np.zeros(len(x), dtype=bool), np.zeros(len(a), dtype=bool)
    step = max(1, _BLOCK // max(1, len(a)))
    for first in range(0, len(x), step):
        rows = slice(first, first + step)
        fits = _fits(magnitude[rows], _product(x[rows], a), FLOAT32)
        tokens[rows] = fits.any(axis=1)
        experts |= fits.any(axis=0)
    return tokens, experts


def lowest_bit(rows: npt.NDArray[np.float32]) -> Ids:
    """Return for each of ``rows [N, M]`` the exponent of the lowest set bit in it.

    A row of zeros, which rounds nowhere, counts as a high exponent; a value that is not
    finite as a low one, since no sum that contains it is exact.
    """
    lowest, endless = _lowest(rows)
    exponent = np.where(lowest == np.inf, _NO_BIT, np.frexp(lowest)[1] - 1)
    return exponent if endless is None else np.where(endless, -_NO_BIT, exponent)


def lowest_powers(rows: npt.NDArray[np.float32], of_zeros: float) -> Floats:
    """Return what ``lowest_bit`` stands for, ``[...]`` of ``rows [..., M]``, as powers of two.

    Of a row of zeros that is ``of_zeros``, and 0 of one with a value that is not finite.
    """
    lowest, endless = _lowest(rows)
    powers = np.where(lowest == np.inf, of_zeros, lowest.astype(np.float64))
    return powers if endless is None else np.where(endless, 0.0, powers)


def _lowest(rows: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], Bools | None]:
    """Return the lowest set bit of each row, infinite of zeros, and where it is no bit at all."""
    magnitude = np.abs(rows)
    bits = magnitude.view(np.int32)
    below = (bits & (bits - 1)).view(np.float32)  # the value without its lowest set bit, or
    below[(bits & _FRACTION) == 0] = 0.0  # where that bit is the only one, nothing
    each = magnitude - below
    each[bits == 0] = np.inf
    lowest = each.min(axis=-1, initial=np.inf)
    endless = bits >= _INFINITY
    return lowest, np.asarray(endless.any(axis=-1)) if some(endless) else None


def most_quantum(x: npt.NDArray[np.float32], matrices: Sequence[npt.NDArray[np.float32]]) -> Floats:
    """Return per token, ``[T]``, a power of two that no quantum of its logits is above."""
    bits, *others = (lowest_bit(array[:, :_HEAD]) for array in (x, *matrices))
    most: Floats = np.ldexp(1.0, bits + np.minimum.reduce(others).max())
    return most


def _powers_of_heads(arrays: list[npt.NDArray[np.float32]]) -> list[Floats]:
    """Return what divides the first columns of each array's rows, by one operation."""
    powers = lowest_powers(np.concatenate([array[:, :_HEAD] for array in arrays]), np.inf)
    ends = accumulate((len(array) for array in arrays), initial=0)
    return [powers[first:end] for first, end in pairwise(ends)]


def _product(x: Floats, a: Floats) -> Floats:
    product: Floats = x[:, None] * a
    return product
