"""Decides the rows that are certainly right on the device of the answer, and leaves the others.

What is certain there is so by NumPy too (docs/spec/judging.md, "On the device of the answer"):
numbers of the device are points of the intervals, and weights are bounded by the same rules.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import numpy as np

from moe_routing.conformance.judge.answer import Answer
from moe_routing.conformance.judge.bounds import Bounds
from moe_routing.conformance.judge.certain_logits import CertainLogits, certain_logits
from moe_routing.conformance.judge.columns import Columns
from moe_routing.conformance.judge.device_rows import Answered, DeviceRows, Marks
from moe_routing.conformance.judge.intervals import Interval, store_unit
from moe_routing.conformance.judge.logits import format_of
from moe_routing.conformance.judge.numerics import products_of
from moe_routing.conformance.judge.rows import NONE
from moe_routing.conformance.judge.weights import weight_bounds
from moe_routing.implementations import Numerics
from moe_routing.reference.formats import FLOAT32, Bools, FloatFormat, Floats, Ids

_BLOCK = 2**22  # numbers in the logits of the rows that a device looks at together
_CLOSEST = 2**10  # rows whose share of the allowance is measured
_MARGIN = 2.0**-40  # of a bound, above what float64 loses on either side
_NEAR = 16.0  # that a softmax's logits may be off by, so that the greatest weighs something
_SHIFTED = 2.0**-20  # above all that a softmax's bounds change with a shift below 0
_MODERATE = 2.0**12  # logits up to which a float32 exponent is off by 2^-9 at most


@dataclass(frozen=True, kw_only=True, eq=False)
class OnDevice:
    """What a device decided of a large call: which tokens are certainly ``right [T]``.

    ``used [T]`` is about what share of its allowance each took; its order is what matters.
    """

    right: Bools
    used: Floats

    def closest(self) -> Ids:
        """Return the decided tokens, a thousand at most, that took most of their allowance."""
        rows = np.flatnonzero(self.right)
        most = np.argsort(self.used[rows])[-_CLOSEST:]
        return np.sort(rows[most])


def decided_there(bounds: Bounds, answer: Answer, *, routed: bool) -> OnDevice | None:
    """Decide a large call on the device of its answer, ``routed`` from the answer's own logits.

    None where the call is of a kind that a device does not decide.
    """
    routed = routed and answer.logits is not None
    with np.errstate(all="ignore"):
        certain = certain_of(bounds, routed=routed)
    if certain is None:
        return None
    config, inputs = bounds.config, bounds.inputs
    rows = DeviceRows(
        config=config,
        inputs=inputs,
        certain=certain,
        out=format_of(config.logits_dtype, inputs),
        device=answer.device,
    )
    size, parts = max(1, _BLOCK // config.num_experts), []
    for first in range(0, inputs.num_tokens, size):
        which = slice(first, first + size)
        part = answer.rows(which)
        found = rows.marks(which, Answered(ids=part.expert_ids, logits=part.logits, routed=routed))
        if found is None:
            return None
        with np.errstate(all="ignore"):
            parts.append(_weighed(bounds, found, part))
    return OnDevice(
        right=np.concatenate([part.right for part in parts]),
        used=np.concatenate([part.used for part in parts]),
    )


def has_torch(device: str) -> bool:
    """Whether torch can compute on ``device``, as an array described it."""
    if not device.startswith("cuda") or importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def certain_of(bounds: Bounds, *, routed: bool) -> CertainLogits | None:
    """Return what is known of the logits of a call that a device can decide; else None."""
    config, inputs = bounds.config, bounds.inputs
    narrow = store_unit(bounds.score_format) > 0.0
    if not routed and (narrow or products_of(bounds.numerics) != products_of(Numerics())):
        return None  # in 16 bits a part of an interval may err by more than the whole
    softmax = config.score == "softmax" and config.weights_from in ("scores", "masked_scores")
    order = 1.0 if config.renormalize is None else config.renormalize.order
    if softmax and (narrow or order != 1.0):
        return None
    groups = config.groups
    if groups is not None and (groups.from_each or config.weights_from == "masked_scores"):
        return None
    certain = certain_logits(config, inputs, format_of(config.logits_dtype, inputs))
    return certain if certain is not None and _in_range(bounds, certain) else None


def _in_range(bounds: Bounds, certain: CertainLogits) -> bool:
    """Whether each token is judged: no logit, score or sum of them leaves its format."""
    config, bias = bounds.config, bounds.inputs.selection_bias
    out = format_of(config.logits_dtype, bounds.inputs)
    factor = abs(config.logit_multiplier) * float(np.log2(np.e))
    if not certain.stay_within((FLOAT32, out, bounds.score_format), factor):
        return False
    most = 1.0 + certain.reach * max(1.0, factor)  # of every score function
    if bias is not None:
        if (bias == np.inf).any():
            return False
        most += float(np.abs(np.where(np.isfinite(bias), bias, 0.0)).max(initial=0.0))
    summed: FloatFormat = bounds.score_format if bias is None else FLOAT32
    top = 1 if config.groups is None else config.groups.top
    return 4.0 * top * most <= summed.largest


def _weighed(bounds: Bounds, marks: Marks, answer: Answer) -> OnDevice:
    """Keep of the ``marks`` the rows whose weights are right as well."""
    config, weights = bounds.config, answer.weights
    ids = np.clip(answer.expert_ids, 0, config.num_experts - 1)
    later = _columns(bounds, marks, marks.least)
    bound = weight_bounds(bounds, later, ids)
    lo, hi = bound.permitted.lo, bound.permitted.hi
    right, margin = marks.right & bound.decided, np.full((len(ids), 1), _MARGIN)
    if config.score == "softmax":
        size = np.abs(later.operated.lo).max(axis=1, keepdims=True)
        spread = marks.spread[:, None] * abs(config.logit_multiplier)
        moderate = (np.maximum(size, np.abs(later.shift)) <= _MODERATE) & (spread <= _NEAR)
        right &= moderate[:, 0]
        margin = margin * (1.0 + np.abs(later.shift)) + _SHIFTED * spread * (later.shift < 0.0)
    if marks.most.any() and config.renormalize is not None:
        right &= weight_bounds(bounds, _columns(bounds, marks, marks.most), ids).decided
    fine = (lo + margin * np.abs(lo) <= weights) & (weights <= hi - margin * np.abs(hi))
    right &= fine.all(axis=1)
    if bound.row is not None:
        right &= (bound.row.apart(weights, right) == NONE).all(axis=1)
    middle, half = (lo + hi) / 2.0, (hi - lo) / 2.0
    used = np.where(half > 0.0, np.abs(weights - middle) / half, 0.0).max(axis=1)
    return OnDevice(right=right, used=np.fmax(used, marks.used))


def _columns(bounds: Bounds, marks: Marks, off: Floats) -> Columns:
    """Return the bounds of the selected experts, whose logits may be ``off`` by so much."""
    return Columns(
        config=bounds.config,
        selection_bias=bounds.inputs.selection_bias,
        numerics=bounds.numerics,
        form=bounds.score_format,
        logits=Interval(marks.logits - off, marks.logits + off),
        judged=marks.right,
        shift=np.where(np.isfinite(marks.shift), marks.shift, 0.0),
        others=marks.others,
    )
