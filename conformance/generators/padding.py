"""Padded batches: padding last or anywhere, with hidden states of anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import numpy as np

from moe_routing.conformance.calls.padding import PaddedCase
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.generators.axes import Choose
from moe_routing.conformance.generators.choices import Focus, Offers, choose_case, narrowed_by
from moe_routing.conformance.generators.construct import take_tokens, with_inputs
from moe_routing.conformance.generators.reducer import Reduction
from moe_routing.conformance.generators.sizes import Size
from moe_routing.implementations import Capabilities
from moe_routing.reference.formats import Ids
from moe_routing.reference.padding import Padding, Told

WHERE = ("last", "last", "anywhere", "first", "none", "all")
"""Which tokens are padding, as often as they are drawn."""

HELD = ("as-is", "nan", "infinite", "large")
"""What the hidden states of padding hold."""

TOLD: tuple[Told, ...] = get_args(Told)


def choose_padded_case(
    choose: Choose, capabilities: Capabilities, focus: Focus, padding: Offers | None = None
) -> PaddedCase:
    """Return a routing case with padding that is claimed, made by choices."""
    case = choose_case(choose, capabilities, focus)
    choose = narrowed_by(choose, padding or {})
    told = choose("told", capabilities.pads.told)
    where = choose("padding", WHERE)
    held = choose("padding's hidden states", HELD)
    rng = np.random.default_rng(choose("seed", range(2**16)))
    real = drawn_tokens(rng, where, case.num_tokens, last=told == "count")
    return PaddedCase.of(holding(case, real, held), Padding(real=real, told=told))


def drawn_tokens(rng: np.random.Generator, where: str, tokens: int, *, last: bool) -> Ids:
    """Draw which tokens are none of padding, as 0 and 1."""
    if where in ("none", "all"):
        return np.full(tokens, int(where == "none"))
    kept = (rng.random(tokens) < 0.6).astype(np.int64)
    if where == "last" or last:
        return np.sort(kept)[::-1].copy()
    return np.sort(kept) if where == "first" else kept


def holding(case: Case, real: Ids, held: str) -> Case:
    """Return the case whose padding holds something, where the gate carries it."""
    value = {"nan": np.nan, "infinite": np.inf, "large": 2.0**14}.get(held)
    lost = np.flatnonzero(real == 0)
    if value is None or not lost.size:
        return case
    names = ("hidden", "logits") if case.inputs.logits is not None else ("hidden",)
    if len(names) == 2 and held != "nan":
        return case  # given logits are as they were
    arrays: dict[str, Any] = {name: np.array(getattr(case.inputs, name)) for name in names}
    for array in arrays.values():
        array[lost] = value
    return with_inputs(case, **arrays)


# Smaller cases.


def _plain(case: PaddedCase) -> Iterator[PaddedCase]:
    """Yield the case told by a mask of tokens, and with padding of zeros."""
    if case.inputs.told != "valid":
        yield with_inputs(case, told="valid")
    lost = case.inputs.real == 0
    if case.inputs.logits is None and np.any(case.inputs.hidden[lost] != 0.0):
        hidden = np.array(case.inputs.hidden)
        hidden[lost] = 0.0
        yield with_inputs(case, hidden=hidden)


PADDING_REDUCTIONS: tuple[Reduction, ...] = (_plain,)
"""The reductions of padding; those of routing cases come after them."""

PADDING_SIZES = (Size(name="T", count=lambda c: c.num_tokens, usual=4, keep=take_tokens),)
"""The sizes of a padded batch."""
