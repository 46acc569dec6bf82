"""The kinds of case: for each, everything that depends on the kind, in one entry.

A new kind is a class of case in ``calls``, a class of trial in ``trial``, its entry in a module of
its own here, and its place in ``KINDS``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.cases.kinds.balance import BALANCE
from moe_routing.conformance.cases.kinds.capacity import CAPACITY
from moe_routing.conformance.cases.kinds.expert_gradients import EXPERT_GRADIENT
from moe_routing.conformance.cases.kinds.experts import EXPERTS
from moe_routing.conformance.cases.kinds.gradients import GRADIENT
from moe_routing.conformance.cases.kinds.kind import Kind
from moe_routing.conformance.cases.kinds.layer import LAYER
from moe_routing.conformance.cases.kinds.padding import PADDED
from moe_routing.conformance.cases.kinds.permutation import PERMUTATION
from moe_routing.conformance.cases.kinds.ranks import RANK_GRADIENT, RANKS
from moe_routing.conformance.cases.kinds.replay import REPLAY
from moe_routing.conformance.cases.kinds.routing import ROUTING
from moe_routing.conformance.cases.kinds.shards import SHARDS
from moe_routing.conformance.cases.kinds.shared_experts import SHARED_EXPERTS
from moe_routing.conformance.trial.base import AnyTrial
from moe_routing.conformance.trial.lenience import STRICT, Lenience
from moe_routing.conformance.trial.memo import CaseMemo
from moe_routing.conformance.trial.repeats import REPEATS
from moe_routing.implementations import Adapter, Capabilities

__all__ = [
    "BALANCE",
    "CAPACITY",
    "EXPERTS",
    "EXPERT_GRADIENT",
    "GRADIENT",
    "KINDS",
    "LAYER",
    "PADDED",
    "PERMUTATION",
    "RANKS",
    "RANK_GRADIENT",
    "REPLAY",
    "ROUTING",
    "SHARDS",
    "SHARED_EXPERTS",
    "Kind",
    "all_defined",
    "facts_of",
    "kind_of",
    "trial_of",
]

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        ROUTING,
        SHARED_EXPERTS,
        PERMUTATION,
        GRADIENT,
        EXPERTS,
        EXPERT_GRADIENT,
        SHARDS,
        RANKS,
        RANK_GRADIENT,
        REPLAY,
        CAPACITY,
        PADDED,
        BALANCE,
        LAYER,
    )
}
"""Every kind of case by its name."""


def kind_of(case: AnyCase) -> Kind:
    """Return the kind of a case."""
    return KINDS[case.kind]


def facts_of(case: AnyCase, capabilities: Capabilities) -> Any:
    """Return what events are read off, under the numerics that ``capabilities`` declare."""
    return kind_of(case).facts(case, capabilities.numerics)


def all_defined(case: AnyCase, facts: Any) -> bool:
    """Return whether the specification defines the answer to every token of ``case``."""
    try:
        return kind_of(case).defined(facts)
    except ValueError:  # a configuration made around its checks has no answer
        return False


def trial_of(
    adapter: Adapter,
    case: AnyCase,
    method: str,
    is_known: Callable[[AnyTrial], bool] = lambda trial: False,
    memo: CaseMemo | None = None,
    lenience: Lenience = STRICT,
    repeats: int = REPEATS,
) -> AnyTrial:
    """Return the trial that fits the kind of ``case``; without a ``memo``, with one of its own."""
    made = kind_of(case).trial
    return made(adapter, case, method, is_known, memo or CaseMemo(), lenience, repeats)
