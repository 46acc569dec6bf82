"""Events of padding: where it is, how it is told, what it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from moe_routing.conformance.calls.experts import ExpertsCase
from moe_routing.conformance.calls.padding import PaddedCase
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.registry import ROWS, event
from moe_routing.conformance.generators.axes import Choose
from moe_routing.conformance.generators.choices import seeded
from moe_routing.conformance.generators.construct import table_cases
from moe_routing.conformance.generators.experts import Wishes, choose_experts_case
from moe_routing.conformance.generators.padding import TOLD, holding
from moe_routing.conformance.judge.experts import Layer
from moe_routing.conformance.trial.padding import PaddingFacts
from moe_routing.implementations import Capabilities
from moe_routing.reference.padding import Padding

Occurs = Callable[[PaddingFacts], bool]
TWO = (*ROWS, (0.5, -1.0, 1.0, 0.25), (2.0, 0.25, -0.5, 1.0))
"""Five tokens."""


def _padded(slug: str, statement: str, occurs: Occurs, real: Any, held: str = "as-is") -> None:
    """Register an event that a batch with this padding shows, told in each way that is claimed."""

    def shown(facts: Any) -> bool:
        return isinstance(facts, PaddingFacts) and bool(occurs(facts))

    @event(f"padded-{slug}", statement, shown)
    def _(capabilities: Capabilities) -> Iterator[PaddedCase]:
        for top_k in (2, 1):
            for case in table_cases(capabilities, TWO[: len(real)], top_k=top_k):
                yield from _told(capabilities, case, _stretched(real, case.num_tokens), held)


def _stretched(real: Any, tokens: int) -> Any:
    """Return which tokens of a batch are real, in the order of ``real`` where there are more."""
    few = np.arange(tokens) * len(real) // max(tokens, len(real))
    return np.array(real)[few if tokens > len(real) else slice(tokens)]


def _told(capabilities: Capabilities, case: Case, real: Any, held: str) -> Iterator[PaddedCase]:
    for told in (each for each in TOLD[::-1] if each in capabilities.pads.told):
        try:
            padding = Padding(real=real, told=told)
        except ValueError:  # a count says nothing of padding between tokens
            continue
        yield PaddedCase.of(holding(case, real, held), padding)


def _some(facts: PaddingFacts) -> bool:
    return bool(facts.valid.any() and not facts.valid.all())


def _is_told(told: str) -> Occurs:
    return lambda facts: _some(facts) and facts.case.inputs.told == told


_padded("some", "padding, and tokens", _some, (1, 1, 0))
_padded(
    "last",
    "padding after all tokens, of which there are more than it",
    lambda f: (
        _some(f)
        and not (np.diff(f.valid.astype(int)) > 0).any()
        and 2 * sum(f.valid) > f.valid.size
    ),
    (1, 1, 0),
)
_padded(
    "between",
    "padding between tokens",
    lambda f: bool((np.diff(np.flatnonzero(f.valid)) > 1).any()),
    (1, 0, 1),
)
_padded(
    "first",
    "padding before all tokens",
    lambda f: _some(f) and not (np.diff(f.valid.astype(int)) < 0).any(),
    (0, 1, 1),
)
_padded("all", "nothing but padding", lambda f: f.valid.size > 0 and not f.valid.any(), (0, 0, 0))
_padded("none", "no padding", lambda f: f.valid.size > 0 and bool(f.valid.all()), (1, 1, 1))
_padded(
    "nan",
    "padding whose hidden states are NaN, among tokens",
    lambda f: _some(f) and bool(np.isnan(f.hidden).all(axis=1).any()),
    (1, 1, 0),
    "nan",
)
_padded(
    "infinite",
    "padding whose hidden states are infinite, among tokens",
    lambda f: _some(f) and bool(np.isinf(f.hidden).all(axis=1).any()),
    (1, 1, 0),
    "infinite",
)
for _way, _words in (
    ("count", "a number of tokens"),
    ("valid", "a mask that is True for tokens"),
    ("padding", "a mask that is True for padding"),
):
    _padded(f"by-{_way}", f"padding that is told by {_words}", _is_told(_way), (1, 1, 0))


@event(
    "padded-tokens-above-1024",
    "more than 1,024 tokens before padding, of which there is some",
    lambda f: (
        isinstance(f, PaddingFacts)
        and _some(f)
        and int(f.valid[:1025].sum()) == 1025
        and not f.valid[-1]
    ),
)
def _(capabilities: Capabilities) -> Iterator[PaddedCase]:
    real = (np.arange(1030) < 1027).astype(np.int64)
    ways = [each for each in TOLD if each in capabilities.pads.told]  # a count is a number
    for case in table_cases(capabilities, np.resize(np.array(TWO), (1030, 4)), top_k=2):
        if case.num_tokens == real.size:
            yield from (PaddedCase.of(case, Padding(real=real, told=each)) for each in ways)


def nan_where_absent(case: ExpertsCase) -> ExpertsCase | None:
    """Return the call whose tokens without routes hold NaN; None where there is none."""
    lost = (case.inputs.expert_ids < 0).all(axis=1)
    if not lost.any():
        return None
    hidden = np.array(case.inputs.hidden)
    hidden[lost] = np.nan
    return replace(case, inputs=replace(case.inputs, hidden=hidden))


def _holds_nan(facts: Any) -> bool:
    if not isinstance(facts, Layer):
        return False
    ids, hidden = facts.inputs.expert_ids, facts.inputs.hidden
    lost = (ids < 0).all(axis=1)
    return bool(np.isnan(hidden[lost]).any())


@event("padded-experts", "a token of NaN without any route", _holds_nan)
def _(capabilities: Capabilities) -> Iterator[ExpertsCase]:
    wishes = Wishes(offers={"absence": ("tokens",), "tokens": (3, 2, 5), "experts": (3, 4, 2)})
    for seed in range(8):
        made = nan_where_absent(choose_experts_case(_first(seed), capabilities, wishes))
        if made is not None:
            yield made


def _first(seed: int) -> Choose:
    """Return a chooser of what is plainest, but for the numbers, which ``seed`` gives."""
    drawn = seeded(seed)
    return lambda name, offered: drawn(name, offered) if name == "seed" else offered[0]
