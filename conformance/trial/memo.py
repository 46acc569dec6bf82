"""The bench: what is worked out once for a drawn case, however often it is asked for.

Bounds follow from a case's contents alone, and a verdict from bounds and an answer. So
trials of one case share them: the cases that a clause derives from it, which are new
objects of equal contents, and the answers of many routers, which mostly agree bit for bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.cases.case import Case
from moe_routing.conformance.judge import Answer, Bounds, JudgeError, Verdict, judge
from moe_routing.conformance.judge.batch import judge_all
from moe_routing.conformance.judge.numerics import in_force
from moe_routing.implementations import Numerics
from moe_routing.reference import RouterInputs, SharedExpertInputs

_LARGE = 2**16
"""The bytes from which an array is remembered by its digest."""


@dataclass(frozen=True, eq=False)
class Bench:
    """Bounds by the contents of a case, and verdicts by the contents of an answer.

    Contents are equal where every bit, shape, stride and dtype is: whoever asks again gets
    what he would have been given without the bench. It remembers for as long as it lives,
    so a run takes a new one for every drawn case, and puts that case to all routers with it.
    """

    _bounds: dict[Hashable, dict[Numerics, Bounds]] = field(default_factory=dict)
    _verdicts: dict[Hashable, Verdict] = field(default_factory=dict)
    _seen: dict[int, tuple[object, Hashable]] = field(default_factory=dict)
    _made: dict[Hashable, tuple[Case, Any]] = field(default_factory=dict)
    _cases: dict[int, Case] = field(default_factory=dict)

    def bounds(self, case: Case, numerics: Numerics) -> Bounds:
        """Return the reference and the bounds of ``case``: one object for equal contents.

        Numerics that do not matter in the case are left out of account.
        """
        config, inputs = case.config, case.inputs
        key = self._once(config, repr), self._once(inputs, contents)
        known = self._bounds.setdefault(key, {})
        matter = in_force(config, inputs, numerics)
        if matter not in known:
            known[matter] = Bounds(config, inputs, matter, next(iter(known.values()), None))
        return known[matter]

    def verdict(
        self, bounds: Bounds, answer: Answer, logits: Literal["routed", "copy", "none"]
    ) -> Verdict:
        """Return the judge's verdict on ``answer``, judged once for equal contents.

        ``logits`` as in ``judge``, which tells only routed logits from others. Errors: as
        ``judge``, and again when asked again.
        """
        key = self._question(bounds, answer, logits)
        if key not in self._verdicts:
            self._verdicts[key] = judge(bounds, answer, logits=logits)
        return self._verdicts[key]

    def judge_all(
        self,
        bounds: Bounds,
        answers: Iterable[Answer],
        logits: Literal["routed", "copy", "none"],
    ) -> None:
        """Judge answers in one go, as ``judge_all``, for those who will ask ``verdict``."""
        named = {self._question(bounds, answer, logits): answer for answer in answers}
        new = {key: answer for key, answer in named.items() if key not in self._verdicts}
        try:
            verdicts = judge_all(bounds, [*new.values()], logits=logits)
        except JudgeError:  # over which answer it is, each finds that asks alone
            return
        self._verdicts.update(zip(new, verdicts, strict=True))

    def made(self, case: Case, make: Callable[..., Any], *settings: Hashable) -> Any:
        """Return ``make(case, *settings)``, made once; the case is kept: its id stays its own."""
        key = id(case), make, settings
        if key not in self._made:
            self._made[key] = case, make(case, *settings)
            made = self._made[key][1]
            if isinstance(made, Case):
                self._cases[id(made)] = made
        return self._made[key][1]

    def has_made(self, case: Case) -> bool:
        """Tell whether ``case`` was made here: one object for all who ask for it."""
        return id(case) in self._cases

    def _question(
        self, bounds: Bounds, answer: Answer, logits: Literal["routed", "copy", "none"]
    ) -> Hashable:
        """Return what a verdict follows from; it keeps its bounds, so their id stays theirs."""
        return id(bounds), logits == "routed", self._once(answer, contents)

    def _once(self, value: object, read: Callable[[Any], Hashable]) -> Hashable:
        """Read a frozen value's contents once; it is kept, so that its id stays its own."""
        if id(value) not in self._seen:
            self._seen[id(value)] = value, read(value)
        return self._seen[id(value)][1]


def contents(value: RouterInputs | SharedExpertInputs | Answer) -> Hashable:
    """Return what two values of equal contents, and no others, have in common."""
    return tuple(
        (part.dtype.char, part.shape, part.strides, _bits(part))
        if isinstance(part, np.ndarray)
        else part
        for part in vars(value).values()
    )


def _bits(array: npt.NDArray[Any]) -> bytes:
    """Return the array's bytes, or of a large one, which is not to be held twice, their digest."""
    if array.nbytes <= _LARGE:
        return array.tobytes()
    return hashlib.sha256(np.ascontiguousarray(array)).digest()
