"""A per-case cache of bounds and verdicts.

Bounds follow from a case's contents alone, and a verdict from bounds and an answer. So
trials of one case share them: the cases that a clause derives from it, which are new
objects of equal contents, and the answers of many routers, which mostly agree bit for bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.calls.memory import HasArrays
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.judge import Answer, Bounds, JudgeError, Verdict, judge
from moe_routing.conformance.judge.batch import judge_all
from moe_routing.conformance.judge.numerics import without_idle
from moe_routing.conformance.trial.few import SpreadBounds, judge_spread, repeats
from moe_routing.implementations import Numerics

_LARGE = 2**16
"""The size in bytes from which an array is cached by its digest."""


@dataclass(frozen=True, eq=False)
class CaseMemo:
    """Bounds by the contents of a case, and verdicts by the contents of an answer.

    Contents are equal where every bit, shape, stride and dtype is: a cached result is identical
    to a fresh one. Nothing is ever dropped, so a run takes a new memo for every drawn case, and
    tests all routers on that case with it.
    """

    _bounds: dict[Hashable, dict[Numerics, Bounds]] = field(default_factory=dict)
    _verdicts: dict[Hashable, Verdict] = field(default_factory=dict)
    _seen: dict[int, tuple[object, Hashable]] = field(default_factory=dict)
    _made: dict[Hashable, tuple[AnyCase, Any]] = field(default_factory=dict)
    _ids: set[int] = field(default_factory=set)

    def bounds(self, case: Case, numerics: Numerics) -> Bounds:
        """Return the reference and the bounds of ``case``: one object for equal contents.

        Numerics that cannot affect the case are ignored.
        """
        config, inputs = case.config, case.inputs
        key = self._read(config, repr), self._read(inputs, contents)
        known = self._bounds.setdefault(key, {})
        matter = without_idle(config, inputs, numerics)
        if matter not in known:
            known[matter] = self._new_bounds(case, matter, next(iter(known.values()), None))
        return known[matter]

    def _new_bounds(self, case: Case, numerics: Numerics, other: Bounds | None) -> Bounds:
        """Return bounds of ``case``; of a large batch of few tokens, those of the few."""
        found = self.once(case, repeats)
        if found is None:
            return Bounds(case.config, case.inputs, numerics, other)
        few = self.bounds(found.few, numerics)
        return SpreadBounds(case.config, case.inputs, numerics, other, few=few, which=found.which)

    def verdict(
        self, bounds: Bounds, answer: Answer, logits: Literal["routed", "copy", "none"]
    ) -> Verdict:
        """Return the judge's verdict on ``answer``, judged once for equal contents.

        ``logits`` as in ``judge``, which distinguishes only routed logits from others. Errors:
        as ``judge``, at every call.
        """
        key = self._verdict_key(bounds, answer, logits)
        if key not in self._verdicts:
            if isinstance(bounds, SpreadBounds):
                self._verdicts[key] = judge_spread(bounds, answer, logits)
            else:
                self._verdicts[key] = judge(bounds, answer, logits=logits)
        return self._verdicts[key]

    def judge_all(
        self,
        bounds: Bounds,
        answers: Iterable[Answer],
        logits: Literal["routed", "copy", "none"],
    ) -> None:
        """Judge answers in one batch, so that ``verdict`` finds them cached."""
        named = {self._verdict_key(bounds, answer, logits): answer for answer in answers}
        new = {key: answer for key, answer in named.items() if key not in self._verdicts}
        try:
            verdicts = judge_all(bounds, [*new.values()], logits=logits)
        except JudgeError:  # ``verdict`` raises it for the answer that it is about
            return
        self._verdicts.update(zip(new, verdicts, strict=True))

    def once(self, case: AnyCase, make: Callable[..., Any], *settings: Hashable) -> Any:
        """Return ``make(case, *settings)``, computed once.

        The case is held, so that no other object gets its id.
        """
        key = id(case), make, settings
        if key not in self._made:
            self._made[key] = case, make(case, *settings)
            self._ids.add(id(self._made[key][1]))
        return self._made[key][1]

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many bounds it holds, how many verdicts, and how much else that has a size."""
        bounds = sum(len(each) for each in self._bounds.values())
        made = sum(not isinstance(each, (bool, NoneType)) for _, each in self._made.values())
        return bounds, len(self._verdicts), made

    def has_made(self, case: AnyCase) -> bool:
        """Whether ``case`` was made by ``once``: one object for every trial that derives it."""
        return id(case) in self._ids

    def _verdict_key(
        self, bounds: Bounds, answer: Answer, logits: Literal["routed", "copy", "none"]
    ) -> Hashable:
        """Return the key of a verdict, which holds its bounds, so that no others get their id."""
        return id(bounds), logits == "routed", self._read(answer, contents)

    def _read(self, value: object, read: Callable[[Any], Hashable]) -> Hashable:
        """Read a frozen value's contents once; it is held, so that no other gets its id."""
        if id(value) not in self._seen:
            self._seen[id(value)] = value, read(value)
        return self._seen[id(value)][1]


def contents(value: HasArrays | Answer) -> Hashable:
    """Return a key that is equal for values of equal contents, and for no others."""
    return contents_of(vars(value))


def contents_of(parts: Mapping[str, Any]) -> Hashable:
    """Return a key that is equal for parts of equal names and contents, and for no others."""
    return tuple(
        (name, part.dtype.char, part.shape, part.strides, _bits(part))
        if isinstance(part, np.ndarray)
        else (name, part)
        for name, part in parts.items()
    )


def _bits(array: npt.NDArray[Any]) -> bytes:
    """Return the array's bytes; for a large one their digest, so as not to hold it twice."""
    if array.nbytes <= _LARGE:
        return array.tobytes()
    return hashlib.sha256(np.ascontiguousarray(array).data).digest()
