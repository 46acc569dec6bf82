"""Events of combined settings: every mix of score, bias, groups, renormalisation and scale.

A stage that is skipped, or done twice, in one branch of a router shows only where that
branch is taken with the stage switched on: so each mix is a condition of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.registry import FAMILIES, event
from moe_routing.conformance.generators.construct import Arrays, table_cases
from moe_routing.conformance.judge import Bounds
from moe_routing.implementations import Capabilities
from moe_routing.reference import RouterConfig
from moe_routing.reference.config import SCORES

FAMILIES["mix"] = "every mix of score, bias, groups, renormalisation and scale, each on or off"

SWITCHES = ("bias", "groups", "renormalized", "scaled")
"""What is on or off in a mix; a scale counts as on where it is neither 0 nor 1."""

_ROWS = np.array([[1.0, 0.25, -0.5, 2.0], [0.0, 1.5, 0.5, -1.0]])
_BIAS = [0.5, -0.25, 0.25, 0.0]


def mix_of(bounds: Bounds) -> str | None:
    """Return the slug of a case's mix; None where it has none, such as with K = 1 or scale 0."""
    config, bias = bounds.config, bounds.inputs.selection_bias
    hashed = bounds.inputs.expert_table is not None
    blank = bias is not None and not bias.any()
    if bounds.inputs.num_tokens == 0 or config.top_k == 1 or config.scale == 0.0 or hashed or blank:
        return None
    return _slug(config.score, bias is not None, *_switched(config))


def _switched(config: RouterConfig) -> tuple[bool, bool, bool]:
    return config.groups is not None, config.renormalize is not None, config.scale != 1.0


def _slug(score: str, *switched: bool) -> str:
    on = [name for name, is_on in zip(SWITCHES, switched, strict=True) if is_on]
    return "mix:" + "+".join([score, *on])


def _mix(score: str, bias: bool, groups: bool, renormalized: bool, scaled: bool) -> None:
    slug = _slug(score, bias, groups, renormalized, scaled)
    wants: dict[str, Any] = {
        "score and weights": lambda pair: pair[0] == score,
        "renormalize": lambda rule: (rule is not None) == renormalized,
        "scale": lambda scale: scale not in (0.0, 1.0) if scaled else scale == 1.0,
    }
    wants |= {} if bias else {"selection_bias": "none"}
    wants |= {} if groups else {"groups": None}
    arrays: Arrays = {"selection_bias": _BIAS} if bias else {}
    words = slug.removeprefix("mix:").replace("+", ", ")

    @event(slug, f"{words}, and nothing else of it", lambda b: mix_of(b) == slug)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        pair = (2, 1) if groups else None
        yield from table_cases(capabilities, _ROWS, top_k=2, wants=wants, groups=pair, **arrays)


for _score in SCORES:
    for _switches in product((False, True), repeat=len(SWITCHES)):
        _mix(_score, *_switches)
