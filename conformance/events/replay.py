"""Events of replays: what a record holds, and where it differs from what a router would choose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from moe_routing.conformance.calls.replay import ReplayCase
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.registry import ROWS, event
from moe_routing.conformance.events.replay_facts import (
    at_stake,
    beside_first,
    lost,
    masked,
    norm_is_tiny,
    several,
    some_absent,
    unlike,
    weight_of_nobody,
    weights_differ,
)
from moe_routing.conformance.events.replay_records import (
    absent_and_first,
    lose,
    plain,
    with_weights,
)
from moe_routing.conformance.generators.construct import table_cases
from moe_routing.conformance.judge.replay import ReplayFacts
from moe_routing.implementations import Capabilities
from moe_routing.implementations.replays import repeats
from moe_routing.reference import Recorded
from moe_routing.reference.formats import BFLOAT16, Floats

Occurs = Callable[[ReplayFacts], bool]
Makes = Callable[[Case], Recorded]


def replayed(
    slug: str, statement: str, occurs: Occurs, record: Makes, *, free: bool = False, **parts: Any
) -> None:
    """Register an event that the cases of a record show, among plain logits."""
    given = {"logits": ROWS, "top_ks": (2, 1), **parts}
    logits, top_ks = given.pop("logits"), given.pop("top_ks")

    def shown(facts: Any) -> bool:
        return isinstance(facts, ReplayFacts) and facts.replayed != free and bool(occurs(facts))

    @event(f"replayed-{slug}", statement, shown)
    def _(capabilities: Capabilities) -> Iterator[ReplayCase]:
        for top_k in top_ks:
            for case in table_cases(capabilities, logits, top_k=top_k, **given):
                yield from fitting_record(capabilities, case, record)


def fitting_record(capabilities: Capabilities, case: Case, record: Makes) -> Iterator[ReplayCase]:
    """Yield the case with its record, if there is one that fits it and is claimed."""
    try:
        made = ReplayCase.of(case, record(case))
    except ValueError:  # fewer experts or tokens than the record wants
        return
    refused = capabilities.replays.refusals(made.config, made.inputs.recorded)
    if not refused and not capabilities.layout_refusals(made.inputs):
        yield made


replayed(
    "elsewhere",
    "forced experts that are not those the router would choose",
    at_stake,
    plain,
)
replayed(
    "unsorted",
    "forced experts in slots that are in no ascending order",
    lambda f: f.ids.size > 0 and bool((np.diff(np.where(f.present, f.ids, -1), axis=1) < 0).any()),
    plain,
    top_ks=(2, 3),
)
replayed(
    "normed",
    "a norm over several forced experts, other ones than would be chosen",
    lambda f: f.config.renormalize is not None and bool((several(f) & unlike(f)).any()),
    plain,
    wants={"renormalize": lambda rule: rule is not None},
)
replayed(
    "not-normed",
    "forced experts that are not chosen, without a norm",
    lambda f: f.config.renormalize is None and at_stake(f),
    plain,
    wants={"renormalize": None},
)
replayed(
    "tiny-norm",
    "forced experts whose scores sum to less than 1e-12, under a norm",
    norm_is_tiny,
    plain,
    logits=[[0.0, -4.0, -44.0, -40.0], [-4.0, -3.0, -43.0, -40.0]],
    wants={"renormalize": lambda rule: rule is not None},
)
replayed(
    "scaled",
    "a routed scaling factor that is not 1 or 0",
    lambda f: f.config.scale not in (0.0, 1.0) and at_stake(f),
    plain,
    wants={"scale": lambda scale: scale not in (0.0, 1.0)},
)
replayed(
    "expert-scale",
    "forced experts with scales of their own that differ",
    lambda f: (
        f.inputs.per_expert_scale is not None
        and bool(np.ptp(f.inputs.per_expert_scale))
        and at_stake(f)
    ),
    plain,
    per_expert_scale=[0.5, 2.0, -1.0, 1.5],
)
replayed(
    "biased",
    "a selection bias that is not 0 at a forced expert",
    lambda f: (
        f.inputs.selection_bias is not None
        and bool((f.inputs.selection_bias[f.ids[f.present]] != 0.0).any())
        and bool(f.bounds.judged.any())
    ),
    plain,
    selection_bias=[0.25, -0.5, 1.0, 0.75],
)
replayed(
    "masked",
    "weights from masked scores, and a forced expert of a group that is not kept",
    masked,
    plain,
    groups=(2, 1),
    wants={"score and weights": lambda pair: pair[1] == "masked_scores"},
)
replayed(
    "grouped",
    "a forced expert of a group that would not be kept",
    lambda f: f.config.groups is not None and lost(f),
    plain,
    groups=(2, 1),
)
replayed(
    "repeated",
    "an expert in two slots of a token",
    lambda f: repeats(f.ids) and bool(f.bounds.judged.any()),
    lambda case: plain(case, lambda ids: np.repeat(ids[:, :1], ids.shape[1], axis=1)),
    top_ks=(2,),
)
replayed(
    "some-absent",
    "absent routes of a token that has others",
    lambda f: bool((some_absent(f) & f.bounds.judged).any()),
    lambda case: plain(case, lambda ids: lose(ids, np.arange(ids.shape[1]) == 0)),
    top_ks=(2,),
)
replayed(
    "absent-beside-first",
    "an absent route of a token that has expert 0 in another slot, whose weight is not 0",
    beside_first,
    lambda case: plain(case, absent_and_first),
    top_ks=(2, 3, 8),
)
replayed(
    "absent-normed",
    "an absent route of a token whose others are normed",
    lambda f: f.config.renormalize is not None and bool((some_absent(f) & f.bounds.judged).any()),
    lambda case: plain(case, lambda ids: lose(ids, np.arange(ids.shape[1]) == 1)),
    top_ks=(2, 3),
    wants={"renormalize": lambda rule: rule is not None},
)
replayed(
    "absent-in-softmax",
    "an absent route of a token whose others share a softmax of the selected",
    lambda f: (
        f.config.weights_from == "softmax_of_selected"
        and bool((some_absent(f) & f.bounds.judged).any())
    ),
    lambda case: plain(case, lambda ids: lose(ids, np.arange(ids.shape[1]) == 1)),
    top_ks=(3, 2),
    wants={"score and weights": lambda pair: pair[1] == "softmax_of_selected"},
)
replayed(
    "absent-scaled",
    "an absent route of a token whose experts have scales of their own that differ",
    lambda f: (
        f.inputs.per_expert_scale is not None
        and bool(np.ptp(f.inputs.per_expert_scale))
        and bool((some_absent(f) & f.bounds.judged).any())
    ),
    lambda case: plain(case, lambda ids: lose(ids, np.arange(ids.shape[1]) == 1)),
    top_ks=(3, 2),
    per_expert_scale=[0.5, 2.0, -1.0, 1.5],
)
replayed(
    "token-absent",
    "a token all of whose routes are absent, among others",
    lambda f: bool((~f.present.any(axis=1)).any()) and bool(f.present.any()),
    lambda case: plain(case, lambda ids: lose(ids, (np.arange(len(ids)) == 1)[:, None])),
)
replayed(
    "all-absent",
    "every route absent",
    lambda f: f.ids.size > 0 and not f.present.any(),
    lambda case: plain(case, lambda ids: lose(ids, True)),
)
replayed(
    "weights",
    "recorded weights that are not the router's own",
    weights_differ,
    with_weights,
)
replayed(
    "fine-weights",
    "recorded weights of more bits than bfloat16 holds",
    lambda f: (
        f.weights is not None and bool((BFLOAT16.round(f.weights) != f.weights)[f.present].any())
    ),
    with_weights,
    wants={"dtypes": lambda dtypes: dtypes[2] == "float32"},
)
replayed(
    "absent-weights",
    "a recorded weight that is not 0 in a slot whose route is absent",
    weight_of_nobody,
    lambda case: with_weights(case, change=lambda ids: lose(ids, np.arange(ids.shape[1]) == 0)),
    top_ks=(2, 1),
)
replayed(
    "signed-weights",
    "recorded weights below 0, of 0 and above 1",
    lambda f: f.weights is not None and _of_any_sign(f.weights[f.present]),
    lambda case: with_weights(case, numbers=(-0.5, 0.0, 1.5, 2.0, -1.25, 0.25)),
)


def _of_any_sign(weights: Floats) -> bool:
    return bool((weights < 0).any() and (weights == 0).any() and (weights > 1).any())
