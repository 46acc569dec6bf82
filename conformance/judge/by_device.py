"""The verdict on any call: of a large one that was answered on a GPU, by that GPU first.

Blocks with a row that the device leaves are judged by NumPy, so that verdicts are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from moe_routing.conformance.judge.answer import Answer
from moe_routing.conformance.judge.bounds import Bounds
from moe_routing.conformance.judge.on_device import OnDevice, decided_there, has_torch
from moe_routing.conformance.judge.rows import NONE
from moe_routing.conformance.judge.verdict import Verdict, of_block
from moe_routing.conformance.judge.verdict import judge as judge_by_numpy
from moe_routing.conformance.judge.weights import LateWeightBounds, WeightBounds, joined_bounds
from moe_routing.reference import RouterInputs
from moe_routing.reference.formats import Ids


@dataclass(frozen=True, kw_only=True, eq=False)
class DeviceVerdict(Verdict):
    """The verdict on a large call of which a device decided all rows but some blocks."""

    there: OnDevice

    def unlike(self) -> Iterator[Verdict]:
        """Yield verdicts on the blocks that were left, and on the rows nearest to their bounds."""
        bounds = self.bounds
        for block in _left(bounds, self.there):
            yield of_block(bounds, self.answer, block, routed=self.routed)
        rows = self.there.closest()
        some = Bounds(bounds.config, _rows_of(bounds.inputs, rows), bounds.numerics)
        logits: Literal["routed", "none"] = "routed" if self.routed else "none"
        yield judge_by_numpy(some, self.answer.rows(rows), logits=logits)


def judge(
    bounds: Bounds, answer: Answer, *, logits: Literal["routed", "copy", "none"] = "none"
) -> Verdict:
    """Decide, stage by stage, whether rounding alone can explain ``answer``.

    ``logits`` is the backend's ``Capabilities.logits``: from ``routed`` logits the later
    stages are judged, as points; otherwise from the reference's interval. Non-finite
    own logits fall back to the interval. Source: ``docs/spec/judging.md``.
    """
    if bounds.blocks and has_torch(answer.device):
        routed = logits == "routed"
        there = decided_there(bounds, answer, routed=routed)
        if there is not None:
            return _decided(bounds, answer, there, routed=routed)
    return judge_by_numpy(bounds, answer, logits=logits)


def _decided(bounds: Bounds, answer: Answer, there: OnDevice, *, routed: bool) -> DeviceVerdict:
    """Return the verdict on a call, whose blocks with a row that was left are judged here."""
    tokens = len(answer.expert_ids)
    arrays: dict[str, Any] = {name: np.ones(tokens, dtype=bool) for name in _OF_TOKENS}
    arrays["weights"] = np.ones(answer.expert_ids.shape, dtype=bool)
    if answer.logits is not None:
        arrays["logits"] = np.ones(answer.logits.shape, dtype=bool)
    arrays["apart"] = np.full((tokens, 2), NONE)
    for rows in _left(bounds, there):
        part = of_block(bounds, answer, rows, routed=routed)
        for name, array in arrays.items():
            array[rows] = getattr(part, name)
    return DeviceVerdict(
        bounds=bounds,
        answer=answer,
        **{"logits": None, **arrays},
        weight_bounds=LateWeightBounds(partial(_weight_bounds, bounds, answer, routed=routed)),
        routed=routed and answer.logits is not None,
        there=there,
    )


_OF_TOKENS = ("judged", "distinct", "in_range", "selection", "decided")


def _left(bounds: Bounds, there: OnDevice) -> list[slice]:
    """Return the blocks with a row that the device left."""
    return [rows for rows in bounds.blocks if not there.right[rows].all()]


def _weight_bounds(bounds: Bounds, answer: Answer, *, routed: bool) -> WeightBounds:
    """Return the permitted weights of all rows."""
    parts = (of_block(bounds, answer, rows, routed=routed) for rows in bounds.blocks)
    return joined_bounds([part.weight_bounds for part in parts])


def _rows_of(inputs: RouterInputs, rows: Ids) -> RouterInputs:
    """Return the inputs of some tokens."""
    each = {
        name: getattr(inputs, name)[rows]
        for name in ("hidden", "token_ids", "logits")
        if getattr(inputs, name) is not None
    }
    return replace(inputs, **each)
