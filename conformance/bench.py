"""The bench: what is worked out once for a drawn case, however often it is asked for.

Bounds follow from a case's contents alone, and a verdict from bounds and an answer. So
trials of one case share them: the cases that a clause derives from it, which are new
objects of equal contents, and the answers of many routers, which mostly agree bit for bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.case import Case
from moe_routing.conformance.judge import Answer, Bounds, Verdict, judge
from moe_routing.implementations import Numerics
from moe_routing.reference import RouterInputs


@dataclass(frozen=True, eq=False)
class Bench:
    """Bounds by the contents of a case, and verdicts by the contents of an answer.

    Contents are equal where every bit, shape, stride and dtype is: whoever asks again gets
    what he would have been given without the bench. It remembers for as long as it lives,
    so a run takes a new one for every drawn case, and puts that case to all routers with it.
    """

    _bounds: dict[tuple[str, Numerics, bytes], Bounds] = field(default_factory=dict)
    _verdicts: dict[tuple[int, bool, bytes], Verdict] = field(default_factory=dict)
    _seen: dict[int, tuple[RouterInputs, bytes]] = field(default_factory=dict)

    def bounds(self, case: Case, numerics: Numerics) -> Bounds:
        """Return the reference and the bounds of ``case``: one object for equal contents."""
        key = repr(case.config), numerics, self._contents(case.inputs)
        if key not in self._bounds:
            self._bounds[key] = Bounds(case.config, case.inputs, numerics)
        return self._bounds[key]

    def verdict(
        self, bounds: Bounds, answer: Answer, logits: Literal["routed", "copy", "none"]
    ) -> Verdict:
        """Return the judge's verdict on ``answer``, judged once for equal contents.

        ``logits`` as in ``judge``, which tells only routed logits from others. Errors: as
        ``judge``, and again when asked again.
        """
        routed = logits == "routed"
        key = id(bounds), routed, _digest(vars(answer))  # the verdict keeps the bounds alive
        if key not in self._verdicts:
            self._verdicts[key] = judge(bounds, answer, logits=logits)
        return self._verdicts[key]

    def _contents(self, inputs: RouterInputs) -> bytes:
        """Digest ``inputs``, once for each object: they are frozen, and kept, so ids stay."""
        if id(inputs) not in self._seen:
            self._seen[id(inputs)] = inputs, _digest(vars(inputs))
        return self._seen[id(inputs)][1]


def _digest(fields: Mapping[str, Any]) -> bytes:
    """Return a cryptographic digest, so that equal digests mean equal contents."""
    digest = hashlib.sha256()
    for name, value in fields.items():
        if isinstance(value, np.ndarray):
            digest.update(f"{name}{value.dtype}{value.shape}{value.strides};".encode())
            digest.update(_in_rows(value))
        else:
            digest.update(f"{name}={value!r};".encode())
    return digest.digest()


def _in_rows(array: npt.NDArray[Any]) -> memoryview:
    return memoryview(np.ascontiguousarray(array)).cast("B") if array.size else memoryview(b"")
