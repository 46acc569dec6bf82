"""Certain logits: what a part of the permitted radius shows, before the rest of it is made.

The radius grows with the sum of magnitudes ``|x|.|W|``, a second product of matrices. A logit's own
magnitude is no more than that sum, and the largest numbers bound it: a logit within the radius that
follows from its own magnitude is right, and a call of moderate numbers leaves no range. What is not
certain is decided by the bounds themselves, so that verdicts are the same (docs/spec/judging.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.judge.exactness import most_quantum
from moe_routing.conformance.judge.logits import LogitBounds, products_at_most
from moe_routing.reference import RouterConfig, RouterInputs
from moe_routing.reference.formats import FLOAT32, Bools, FloatFormat, Floats, Ids

LARGE = 2**20
"""The products of a call from which it pays to look for what is certain."""

_BELOW = 1.0 - 2.0**-20  # for the roundings of float64 and of float32 in what is compared
_PARTS = 16.0  # above all that a logit's parts, their stores and their errors may sum to
_MOST = 0.25  # the share of a magnitude that rounding its sum may come to, for that to hold
_FEW = 2**12  # logits whose magnitude is summed one by one


@dataclass(frozen=True, kw_only=True, eq=False)
class CertainLogits:
    """What is known of a call's permitted logits without their magnitudes.

    The radius of a logit that is not exact is above ``rounded`` of its sum of magnitudes and
    ``stored`` of its own, together; none above ``inexact`` is exact. What is an array broadcasts
    to ``[T, E]``. No sum of magnitudes is above ``reach``.
    """

    rounded: Floats
    stored: float
    inexact: Floats
    reach: float
    hidden: npt.NDArray[np.float32]
    matrices: tuple[npt.NDArray[np.float32], ...]

    def rows(self, which: Ids | slice) -> CertainLogits:
        """Take the rows ``which``."""
        return CertainLogits(
            rounded=self.rounded[which],
            stored=self.stored,
            inexact=self.inexact[which],
            reach=self.reach,
            hidden=self.hidden[which],
            matrices=self.matrices,
        )

    def stay_within(self, formats: Iterable[FloatFormat], factor: float) -> bool:
        """Whether no logit, and no ``factor`` times a logit, leaves any of the formats."""
        most = min(each.largest for each in formats)
        return bool(self.reach * _PARTS * max(1.0, factor) <= most)

    def holds(self, reference: Floats, own: Floats) -> Bools:
        """Return which of the logits ``own [T, E]`` are certainly permitted."""
        size, error = np.abs(reference), np.abs(own - reference)
        sure: Bools = error <= (self.rounded + self.stored) * size
        sure &= size > self.inexact
        sure |= error == 0.0
        others = np.nonzero(~sure)
        if 0 < len(others[0]) <= _FEW:
            sure[others] = self._holds_at(others, size[others], error[others])
        return sure

    def _holds_at(self, where: tuple[Any, ...], size: Floats, error: Floats) -> Bools:
        """Return the same of single logits, by their sums of magnitudes."""
        tokens, experts = where
        x = np.abs(self.hidden[tokens], dtype=np.float64)
        sums = [np.einsum("ij,ij->i", x, np.abs(each[experts])) for each in self.matrices]
        magnitude = reduce(np.add, sums)
        rounded, inexact = (
            np.broadcast_to(each, (len(self.hidden), len(self.matrices[0])))[tokens, experts]
            for each in (self.rounded, self.inexact)
        )
        sure: Bools = error <= rounded * magnitude + self.stored * size
        sure &= magnitude > inexact
        return sure


def certain_logits(
    config: RouterConfig, inputs: RouterInputs, out: FloatFormat
) -> CertainLogits | None:
    """Return what is known of a large call before its magnitudes are; of a small one, None."""
    size = inputs.num_tokens * inputs.num_experts * inputs.hidden_size
    if config.input_norm is not None or size <= LARGE:
        return None
    delta = () if inputs.gate_delta is None else (inputs.gate_delta,)
    x, matrices = inputs.hidden, (inputs.gate_weight, *delta)
    n = products_at_most(inputs, x, matrices)
    rounded = n * FLOAT32.unit_roundoff / (1.0 - n * FLOAT32.unit_roundoff)
    if rounded.max() > _MOST:
        return None
    reach = inputs.hidden_size * _largest(x) * sum(_largest(each) for each in matrices)
    if inputs.gate_bias is not None:
        reach += _largest(inputs.gate_bias)
    return CertainLogits(
        rounded=rounded * _BELOW,
        stored=out.unit_roundoff * _BELOW,
        inexact=most_quantum(x, matrices)[:, None] * 2.0**FLOAT32.precision / _BELOW,
        reach=reach,
        hidden=x,
        matrices=matrices,
    )


def _largest(array: npt.NDArray[np.float32]) -> float:
    """Return the largest magnitude in an array; NaN where there is one."""
    return float(np.maximum(array.max(), -array.min()))


class LazyLogits(LogitBounds):
    """The permitted logits of a large call: their interval is made when something reads it."""

    def __init__(
        self,
        reference: Floats,
        out: FloatFormat,
        certain: CertainLogits,
        make: Callable[[], LogitBounds],
    ) -> None:
        self.__dict__.update(reference=reference, _out=out, _certain=certain, _make=make)

    def __getattr__(self, name: str) -> Any:
        """Make the bounds, of which ``name`` is a part. Errors: ``AttributeError``."""
        if name not in LogitBounds.__dataclass_fields__:
            raise AttributeError(name)
        with np.errstate(all="ignore"):
            self.__dict__.update(vars(self.__dict__["_make"]()))
        return self.__dict__[name]

    @property
    def made(self) -> bool:
        """Whether the interval has been made."""
        return "permitted" in self.__dict__

    def rows(self, which: Ids | slice) -> LogitBounds:
        """Take the rows ``which``."""
        whole = super().rows
        if self.made:
            return whole(which)
        own = self.__dict__
        certain = own["_certain"].rows(which)
        return LazyLogits(self.reference[which], own["_out"], certain, lambda: whole(which))

    def contain(self, own: Floats) -> Bools:
        """Return which of an answer's logits ``[T, E]`` are permitted."""
        if not self.made:
            sure: Bools = self.__dict__["_certain"].holds(self.reference, own)
            if sure.all():
                return sure
        return super().contain(own)

    def stay_within(self, form: FloatFormat, factor: float) -> bool:
        """Whether no logit, and no ``factor`` times a logit, leaves its format or ``form``."""
        formats = (FLOAT32, self.__dict__["_out"], form)
        certain: CertainLogits = self.__dict__["_certain"]
        return certain.stay_within(formats, factor)
