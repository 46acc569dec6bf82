"""Events of experts: how routes fall on them, absent and poisoned experts, weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from moe_routing.conformance.calls.experts import ExpertsCase
from moe_routing.conformance.calls.memory import with_changes
from moe_routing.conformance.events.experts import cases, ran, several_of
from moe_routing.conformance.events.registry import event
from moe_routing.conformance.judge.experts import Layer
from moe_routing.implementations import Capabilities
from moe_routing.reference import expert_outputs
from moe_routing.reference.permutation_maps import has_repeats

ran(
    "several",
    "several experts have routes, and a token has several",
    lambda layer: bool((layer.counts > 0).sum() > 1 and (several_of(layer) > 1).any()),
)
ran(
    "weights-differ",
    "a token's routes have weights that differ, none of them 0 or 1",
    lambda layer: _weights_differ(layer),
)
ran(
    "one-hot",
    "a token with one weight of 1 between present routes of weight 0, whose expert answers no 0",
    lambda layer: _one_hot(layer),
    ids=((2, 0, 1), (0, 3, 2), (3, 2, 1)),
    weights="one-hot",
)
ran(
    "one-hot-on-input",
    "a token with one input of an expert unscaled between others scaled by 0",
    lambda layer: layer.config.weight_on == "input" and _one_hot(layer),
    ids=((2, 0, 1), (0, 3, 2), (3, 2, 1)),
    weights="one-hot",
    weight_on=("input",),
)
ran(
    "zero-weight",
    "a present route of weight 0 whose expert answers a finite number that is not 0",
    lambda layer: layer.config.weight_on == "output" and _zeros(layer, overflow=False),
    ids=((2, 0), (0, 3), (3, 2), (0, 2), (1, 3)),
    weights="zeros",
    weight_on=("output",),
)
ran(
    "zero-weight-overflow",
    "a present route of weight 0 whose expert's answer is not finite",
    lambda layer: layer.config.weight_on == "output" and _zeros(layer, overflow=True),
    ids=((2, 0), (0, 3), (3, 2), (0, 2), (1, 3)),
    weights="zeros",
    poison="idle",
    weight_on=("output",),
)
ran(
    "repeated",
    "an expert holds several slots of a token",
    lambda layer: has_repeats(layer.inputs.routes),
    ids=((1, 1), (0, 1), (2, 2)),
    count=3,
)
ran(
    "some-absent",
    "some routes of a token are absent, and others are not",
    lambda layer: bool((~layer.present.all(axis=1) & layer.present.any(axis=1)).any()),
    ids=((2, -1), (0, 3), (-1, 3), (3, 0)),
)
ran(
    "token-absent",
    "all routes of a token are absent, and those of another are not",
    lambda layer: bool((~layer.present.any(axis=1)).any() and layer.present.any()),
    ids=((2, 0), (-1, -1), (3, 2)),
)
ran(
    "all-absent",
    "every route is absent, of several",
    lambda layer: layer.present.size > 1 and not layer.present.any(),
    ids=((-1, -1), (-1, -1)),
)
ran(
    "absent-first-and-last-not-finite",
    "some routes are absent, and what the first and the last expert hold is not finite",
    lambda layer: bool((~layer.present).any() and layer.present.any()) and _ends_poisoned(layer),
    ids=((2, -1), (1, 2), (-1, 1), (-1, -1)),
    poison="nan",
)
for _poison in ("nan", "inf"):
    ran(
        f"unchosen-{_poison}",
        f"an expert that nobody chose holds {_poison}, and another is chosen",
        lambda layer, poison=_poison: _unchosen(layer, poison),  # type: ignore[misc]
        poison=_poison,
    )
ran(
    "first-empty",
    "the first expert has no routes, and another has",
    lambda layer: layer.counts[0] == 0 < layer.counts.max(),
    ids=((1, 2), (3, 1), (2, 3)),
)
ran(
    "last-empty",
    "the last expert has no routes, and another has",
    lambda layer: layer.counts[-1] == 0 < layer.counts.max(),
    ids=((1, 2), (0, 1), (2, 0)),
)
ran(
    "every-other-empty",
    "every other expert has no routes, and the ones between have",
    lambda layer: (
        layer.counts.size > 3
        and not layer.counts[1::2].any()
        and bool((layer.counts[::2] > 0).all())
    ),
    ids=((0, 2), (4, 0), (2, 4)),
    count=5,
)
ran(
    "one-token",
    "an expert has exactly one route, and another has several",
    lambda layer: bool((layer.counts == 1).any() and (layer.counts > 1).any()),
    ids=((1, 2), (2, 3), (2, 3)),
)
ran(
    "one-expert",
    "all routes go to one expert of several",
    lambda layer: np.count_nonzero(layer.counts) == 1 < layer.counts.size,
    ids=((1,), (1,), (1,)),
)


@event(
    "ran-chosen-inf",
    "an expert that some token chose holds infinities, and the outputs of others are finite",
    lambda layer: isinstance(layer, Layer) and _chosen_inf(layer),
)
def _(capabilities: Capabilities) -> Iterator[ExpertsCase]:
    for case in cases(capabilities, np.array(((2, 0), (3, 1), (0, 2), (1, 0))), 4):
        up = np.array(case.inputs.up_weight)
        up[3] = np.inf
        yield replace(case, inputs=with_changes(case.inputs, up_weight=up))


def _chosen_inf(layer: Layer) -> bool:
    wild = np.asarray(np.isinf(layer.inputs.up_weight).any(axis=(1, 2)))
    spoilt = np.asarray((layer.present & wild[layer.inputs.expert_ids]).any(axis=1))
    return bool(spoilt.any()) and bool(layer.output.decided[~spoilt].any())


def _weights_differ(layer: Layer) -> bool:
    weights = np.where(layer.present, layer.inputs.weights, 1.0)
    rows = ((weights != 0.0) & (weights != 1.0)).all(axis=1)
    return bool((rows & (weights.min(axis=1) != weights.max(axis=1))).any()) if rows.size else False


def _one_hot(layer: Layer) -> bool:
    weights = layer.inputs.weights
    ones, zeros = weights == 1.0, layer.present & (weights == 0.0)
    inner = np.zeros_like(ones)
    inner[:, 1:-1] = ones[:, 1:-1] & zeros[:, :-2] & zeros[:, 2:]
    alone = inner & (ones.sum(axis=1, keepdims=True) == 1)
    return bool((expert_outputs(layer.config, layer.inputs)[alone] != 0.0).any())


def _zeros(layer: Layer, *, overflow: bool) -> bool:
    zero = layer.present & (layer.inputs.weights == 0.0)
    if not zero.any():
        return False
    answers = expert_outputs(layer.config, layer.inputs)[zero]
    wild = ~np.isfinite(answers)
    return bool(wild.any() if overflow else (~wild & (answers != 0.0)).any())


def _ends_poisoned(layer: Layer) -> bool:
    ends = layer.inputs.up_weight[[0, -1]]
    return bool((~np.isfinite(ends)).any(axis=(1, 2)).all())


def _unchosen(layer: Layer, poison: str) -> bool:
    held = np.isnan if poison == "nan" else np.isinf
    poisoned = held(layer.inputs.up_weight).any(axis=(1, 2))
    return bool((poisoned & (layer.counts == 0)).any() and layer.present.any())
