"""Clauses of the chapter on whole layers (docs/spec/layer.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from moe_routing.conformance.calls.layer import LayerCase
from moe_routing.conformance.clauses.registry import Check, clause
from moe_routing.conformance.events import members
from moe_routing.conformance.explain.failure import Failure, first_failure
from moe_routing.conformance.explain.layer import call_lines, layer_failure
from moe_routing.conformance.generators.layer import LayerWishes, choose_layer_case
from moe_routing.conformance.generators.seeds import Seeded
from moe_routing.conformance.trial.base import Unchecked
from moe_routing.conformance.trial.boundary import Malformed
from moe_routing.conformance.trial.call import Raised
from moe_routing.conformance.trial.layer import LayerTrial
from moe_routing.implementations import Capabilities

FEW = 50
"""The cases that are drawn for a clause that looks at one part of what the first looks at."""

SHARED = ("singular", "plural", "mlp")


def _layer(
    name: str, why: str, *, wishes: LayerWishes | None = None, **parts: Any
) -> Callable[[Check], Check]:
    wished = wishes or LayerWishes(router={"num_tokens": _some})

    def strategy(capabilities: Capabilities) -> Seeded[LayerCase]:
        return Seeded(partial(choose_layer_case, capabilities=capabilities, wishes=wished))

    return clause(
        f"layer.{name}",
        "MUST",
        why=why,
        method="layer",
        strategy=strategy,
        **{"needs": _hidden, **parts},
    )


def _some(offered: Sequence[int]) -> Sequence[int]:
    return [n for n in offered if n]


def _hidden(capabilities: Capabilities) -> str | None:
    """Return why capabilities exclude a whole layer, or None."""
    if capabilities.takes == "hidden":
        return None
    return "takes='logits', and a layer is given hidden states"


def _shares(capabilities: Capabilities) -> str | None:
    listed = capabilities.composes.shared
    some = {*listed} - {"none"}
    return _hidden(capabilities) or (None if some else f"composes.shared={listed} has no other")


def _held(name: str, trial: LayerTrial) -> Failure | None:
    """Return the failure at the first output that is wrong. Errors: ``Unchecked``."""
    received, wrong = trial.received, trial.wrong
    own = received.routing is not None
    if wrong.any():
        return layer_failure(name, trial.due, received.output, wrong, own=own)
    if trial.case.num_tokens and not trial.due.decided.any():
        raise Unchecked("rounding decides nothing about the outputs")
    return None


@_layer(
    "composes",
    "Each part can be right and the layer wrong: other tokens' rows, weights of another stage, a "
    "factor twice.",
    rules=("LAYER-1", "LAYER-2", "LAYER-3"),
    bugs=("M16", "M21", "M22", "M52", "M63"),
    events=(
        *("layer-several", "layer-without-shared", "layer-shared"),
        *("layer-biased-experts", "layer-selection-bias", *members("layer-large")),
    ),
)
def composes(trial: LayerTrial) -> Failure | None:
    """A layer is its own routing through its experts, and its shared expert on top."""
    return _held("composes", trial)


@_layer(
    "shared-once",
    "A shared expert that is lost or counted twice costs quality in every token, and no error "
    "ever says so.",
    rules=("LAYER-4", "LAYER-5"),
    bugs=("M57", "M58", "M59", "M61"),
    events=("layer-shared", "layer-shared-gated", "layer-scaled-beside-shared"),
    wishes=LayerWishes(router={"num_tokens": _some}, own={"shared": SHARED}),
    needs=_shares,
    most=FEW,
)
def shared_once(trial: LayerTrial) -> Failure | None:
    """The shared expert is added once, gated where it has a gate, and not scaled or weighted."""
    return _held("shared-once", trial) if trial.case.config.shared.kind != "none" else None


@_layer(
    "routing",
    "What a layer reports of its choice is what load counts and replays are made of.",
    rules=("LAYER-7",),
    bugs=("M21", "M63"),
    events=("layer-several", "layer-selection-bias"),
    most=FEW,
)
def routing(trial: LayerTrial) -> Failure | None:
    """A routing that a layer answers is one that its router permits."""
    if trial.verdict is None:
        raise Unchecked("the layer answered no routing")
    return first_failure(trial.verdict, "logits", "selection", "weights")


@_layer(
    "untouched",
    "Hidden states are read again by the residual, and weights by every later call.",
    rules=("LAYER-8",),
    bugs=("M61",),
    events=("layer-several", "layer-shared-gated"),
    most=FEW,
)
def untouched(trial: LayerTrial) -> Failure | None:
    """The call leaves its inputs as they were."""
    if not trial.changed:
        return None
    summary = f"wrote to its inputs: {', '.join(trial.changed)}"
    return Failure(stage="untouched", summary=summary, details=(*call_lines(trial.facts),))


@_layer(
    "no-token",
    "A rank without tokens is ordinary, and its shared expert has nothing to run on.",
    rules=("LAYER-9",),
    bugs=("M53",),
    events=("layer-no-token",),
    wishes=LayerWishes(router={"num_tokens": lambda offered: [n for n in offered if not n]}),
    without_tokens=True,
    most=FEW,
)
def no_token(trial: LayerTrial) -> Failure | None:
    """Without tokens the output is an empty array of H columns."""
    if trial.case.num_tokens:
        return None
    try:
        _ = trial.received
    except (Raised, Malformed) as error:
        details = (*call_lines(trial.facts),)
        return Failure(stage="no-token", summary=f"without tokens: {error}", details=details)
    return None
