"""Events of calls that no other run makes: ``--profile huge`` alone has them.

They are no members of ``EVENTS``: a case is gigabytes of what lies between its products, and a
minute of judging.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from moe_routing.conformance.calls.experts import ExpertsCase
from moe_routing.conformance.events.experts import cases
from moe_routing.conformance.events.registry import Event
from moe_routing.conformance.judge.experts import Layer
from moe_routing.implementations import Capabilities
from moe_routing.reference.activations import ACTIVATIONS

RECIPE = "huge"
"""The recipe of these cases, of which alone a backend may say that it has no memory for them."""

_WIDTH, _HIDDEN, _EXPERTS = 8192, 16, 8
"""Wide experts and short tokens: what is given and returned stays below 100 MB."""


def inner_offsets(past: int, slug: str) -> Event:
    """Return the event of a row whose inner numbers begin past number ``past``."""
    return Event(
        slug=slug,
        statement=f"a row, of all routes', whose inner numbers begin past number {past:,}",
        occurs=lambda layer: isinstance(layer, Layer) and _begins(layer) >= past,
        cases=lambda capabilities: _wide(capabilities, past),
    )


def _begins(layer: Layer) -> int:
    """Return where the inner numbers of the last row begin."""
    return (int(layer.counts.sum()) - 1) * layer.inputs.width


def _wide(capabilities: Capabilities, past: int) -> Iterator[ExpertsCase]:
    """Yield cases of few and wide experts, in 16 bits where those are claimed."""
    computes = capabilities.computes
    experts = min(computes.max_experts or _EXPERTS, _EXPERTS)
    top_k = min(computes.max_top_k or experts, experts)
    tokens = past // _WIDTH // top_k + 64
    if tokens > (computes.max_tokens or tokens):
        return
    short_first = sorted(capabilities.dtypes, key=lambda dtype: dtype == "float32")
    made = cases(
        replace(capabilities, dtypes=tuple(short_first)),
        (np.arange(tokens)[:, None] + np.arange(top_k)) % experts,
        experts,
        activations=[each for each in ("relu", *ACTIVATIONS) if each in computes.activations],
        gated=[each for each in (True, False) if each in computes.gated],
        weight_on=[each for each in ("output", "input") if each in computes.weight_on],
        values=("exact" if "relu" in computes.activations else "normal",),
        sizes=(_HIDDEN, _WIDTH),
    )
    yield from (replace(case, recipe=RECIPE) for case in made)


HUGE = {each.slug: each for each in (inner_offsets(2**31, "ran-inner-offsets-past-31-bits"),)}
"""Every such event by slug."""
