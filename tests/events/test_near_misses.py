"""Near misses: an event is not seen where all is there but the one thing that makes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from for_each import for_each
from near_balances import NEAR_BALANCES
from near_capacities import NEAR_CAPACITIES
from near_expert_gradients import NEAR_EXPERT_GRADIENTS
from near_experts import NEAR_EXPERTS
from near_gradients import NEAR_GRADIENTS
from near_layers import NEAR_LAYERS
from near_padding import NEAR_PADDING
from near_permutations import NEAR_PERMUTATIONS
from near_ranks import NEAR_RANKS
from near_replays import NEAR_REPLAYS
from near_shards import NEAR_SHARDS

from moe_routing.conformance import Case
from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.calls.shared_experts import SharedCase
from moe_routing.conformance.cases.kinds import facts_of
from moe_routing.conformance.events import EVENTS
from moe_routing.conformance.events.registry import ROWS
from moe_routing.conformance.events.sizes import favouring_last, ladder
from moe_routing.conformance.generators.inputs import with_strides
from moe_routing.conformance.generators.shared import make_shared_case
from moe_routing.implementations import Capabilities
from moe_routing.reference import (
    Groups,
    Renormalize,
    RmsNorm,
    RouterConfig,
    RouterInputs,
    SharedSlots,
)
from moe_routing.reference.config import LeastPrecise

WHOLE = Capabilities()
NOWHERE_OUTSIDE = "outside-claims"  # nothing lies outside the whole specification
NEVER = float("-inf")
NARROW = {"dtype": "bfloat16", "scores_dtype": "input", "renormalize": Renormalize()}


def call(
    rows: Any,
    top_k: int = 2,
    *,
    dtype: str = "float32",
    gate_dtype: LeastPrecise = "input",
    arrays: dict[str, Any] | None = None,
    strided: str = "",
    **config: Any,
) -> Case:
    rows = np.atleast_2d(np.asarray(rows, np.float32))
    inputs = RouterInputs.from_logits(rows, dtype=dtype, gate_dtype=gate_dtype, **(arrays or {}))
    inputs = with_strides(inputs, transposed=strided) if strided else inputs
    return Case(
        config=RouterConfig(num_experts=rows.shape[1], top_k=top_k, **config), inputs=inputs
    )


def biased(rows: Any, bias: Sequence[float], top_k: int = 2, **others: Any) -> Case:
    arrays = {"selection_bias": bias, "selection_bias_on": others.pop("place", "gate")}
    return call(rows, top_k, arrays=arrays, score=others.pop("score", "sigmoid"), **others)


def sharing(rows: Any, top_k: int = 2, **arrays: Any) -> Case:
    return call(rows, top_k, arrays=arrays, groups=Groups(count=2, kept=2, from_each=True))


def grouped(rows: Any, count: int, kept: int, top_k: int = 2, top: int = 2, **others: Any) -> Case:
    return call(rows, top_k, groups=Groups(count=count, kept=kept, top=top), **others)


def gated(hidden: Any, gate: Any, top_k: int = 2, config: Any = (), **arrays: Any) -> Case:
    inputs = RouterInputs(hidden=np.float32(hidden), gate_weight=np.float32(gate), **arrays)
    config = RouterConfig(num_experts=inputs.num_experts, top_k=top_k, **dict(config))
    return Case(config=config, inputs=inputs)


def shared(kind: str, width: int = 2, **others: Any) -> SharedCase:
    given: dict[str, Any] = {"gated": False, "tokens": 2, "hidden": 4, "seed": 1, **others}
    return make_shared_case(kind=kind, dtype="float32", width=width, **given)


def hashed(table: list[list[int]], **arrays: Any) -> Case:
    arrays |= {"expert_table": table, "token_ids": [0, 1, 0]}
    return call(ROWS, len(table[0]), arrays=arrays)


EVEN = [[1.0] * 4]
STEERED = ([[2.0, 1.0, 0.0, -1.0]], [0.0, 0.0, 1.0, 1.5])
EYE = np.eye(4)
SCALES = [1.0, -1.0, 0.5, 0.5]
SIGMOID = {"score": "sigmoid"}
BOTH = Renormalize(eps=0.25, floor=0.5)
LATE = {"weights_from": "softmax_of_selected"}

FINE = [1.0, 1.0 + 2.0**-7, 0.5, 0.25]  # what 16 bits hold


def wide(**arrays: Any) -> Case:
    arrays |= {"dtype": "bfloat16", "gate_dtype": "float32"}
    return gated(np.eye(1, 4), np.zeros((4, 4)), 1, **arrays)


NEAR: dict[str, AnyCase] = {
    # Biases.
    "no-bias": biased(ROWS, [0.0] * 4),
    "bias-sums-to-0": biased([[2.0, 1.0, 0.0, -1.0]], [-1.25, -1.25, 1.0, 1.25]),
    "bias-decides": biased(ROWS[:1], [0.125, 0.0, 0.0, 0.125]),
    "bias-on-gate": biased(*STEERED, place="block"),
    "bias-on-block": biased(*STEERED, place="statics"),
    "bias-on-statics": biased(*STEERED, place="gate"),
    "fine-bias": biased(EVEN, [1.0, 1.125, 1.25, 1.375], 1),
    "offset-bias": biased(ROWS, [12.0, 12.0, 12.0, 0.5]),
    "negative-scores-win": biased([[2.0, 1.0, 0.0, -1.0]], [-1.5, -1.5, 0.5, -1.5]),
    "zero-bias": biased(ROWS, [0.0, 0.0, 0.0, 0.25]),
    "bias-would-show-in-weights": biased(*STEERED, top_k=1, renormalize=Renormalize()),
    "fine-bias-beside-16-bits": biased([[0.0] * 4], [1.0, 1 + 2**-10, 1 + 2**-9, 1.0], 1),
    "bias-drowns-scores": biased([[2.0, 1.0, 0.0, -1.0]], [12.0, 12.25, 12.5, 0.0]),
    "norm-scale-decides": gated(
        [[8.0, 4.0, 2.0, 1.0]], EYE, config={"input_norm": RmsNorm()}, hidden_scale=[1.0] * 4
    ),
    "rounded-bias": biased([[0.0, 2.0**-9]], [7.0 + 3 * 2.0**-11, 7.0], 1),  # in float32
    "scores-below-minus-1-win": biased(ROWS, [-3.0, -3.0, 0.0, 0.0]),
    "scores-below-minus-10000-win": biased(ROWS, [-3e4, -3e4, 0.0, NEVER]),
    "bias-blurs-scores": biased([[2.0, 1.0, 0.0, -1.0]], [0.5, 0.25, 0.0, 0.0]),
    "excluded-winner": biased(ROWS, [0.5, 0.25, NEVER, NEVER]),
    "winner-at-minus-1-or-below": biased(ROWS, [-3.0, -3.0, 0.0, 0.0], top_k=1),
    "winner-at-minus-10000-or-below": biased(ROWS, [-3e4, -3.0, 0.0, NEVER], top_k=1),
    "masked-bias": biased(ROWS, [NEVER, NEVER, NEVER, 0.0]),
    "few-finite-bias": biased(ROWS, [NEVER, NEVER, 0.0, 0.0]),
    "one-finite-bias": biased(ROWS, [NEVER, NEVER, 0.0, 0.0]),
    # Whole calls.
    "any-case": call(np.zeros((0, 4))),
    "strided-input": call(ROWS),
    "transposed-hidden": call(ROWS, strided="gate_weight"),
    "spaced-hidden": call(ROWS, strided="hidden"),
    "transposed-gate": call(ROWS, strided="hidden"),
    "spaced-gate": call(ROWS, strided="gate_weight"),
    "spaced-bias": biased(ROWS, [0.5] * 4),
    "float32-input": call(ROWS, dtype="bfloat16"),
    "bfloat16-input": call(ROWS, dtype="float16"),
    "float16-input": call(ROWS),
    # Sizes.
    "empty-batch": call(ROWS[:1]),
    "one-token": call(ROWS[:2]),
    "batch-above-8": call(ladder(8, 4)),
    "batch-above-16": call(ladder(16, 4)),
    "batch-above-256": call(ladder(256, 4)),
    "batch-above-2048": call(ladder(2048, 4)),
    "batch-above-50000": call(ladder(50_000, 4)),
    "ragged-batch": call(ladder(36, 4)),
    "ragged-routes": call(ladder(1024, 4)),
    "routes-above-65535": call(ladder(21_845, 4), 3),
    "bulk-of-many-experts": call(ladder(2, 256)),
    "tokens-equal-experts": call(ROWS),
    "one-selected": call([[1.0]], 1),
    "several-selected": call(ROWS, 1),
    "all-experts-selected": call(ROWS, 3),
    "all-but-one-selected": call(ROWS, 2),
    "odd-top-k": call(ladder(2, 8), 4),
    "top-k-above-15": call(ladder(2, 18), 15),
    "top-k-above-32": call(ladder(2, 36), 32),
    "experts-above-1024": call(np.arange(1026) < 3),
    "biased-in-many-sizes": call(ladder(8, 256), 8, score="sigmoid"),
    "grouped-in-many-sizes": grouped(ladder(8, 256), 8, 4, 8, score="sigmoid"),
    "each-top-k": call(ladder(1, 41), 17),
    "each-size": call(ladder(1, 37), 14),
    "softmax-of-more-than-1024": call(favouring_last(1024), 2),
    "bias-decides-beyond-1024": call(
        favouring_last(1026), score="sigmoid", arrays={"selection_bias": np.zeros(1026)}
    ),
    "published-width": call(favouring_last(128), 4),
    "published-width-of-groups": gated(np.ones((1, 5120)), np.ones((160, 5120)), 6),
    "hidden-above-4096": gated(np.eye(1, 4104), np.ones((4, 4104))),
    "fine-hidden-above-4096": gated(np.eye(1, 4104, 4100), np.ones((4, 4104))),
    "batch-of-many-experts": call(ladder(256, 128), 8),
    # Groups.
    "group-excludes-better": grouped([[2.0, 1.75, 1.5, 1.25, 0.0, 0.0, 0.0, 0.0]], 2, 1),
    "groups-mask-logits": grouped([[2.5, -6.0, 2.25, 1.75, 0.0, 0.0, 0.0, 0.0]], 4, 1),
    "sum-and-max-disagree": grouped([[2.5, -6.0, 2.0, 1.9375, 0.0, 0.0, 0.0, 0.0]], 4, 1),
    "share-keeps-others": grouped([[2.5, -6.0, 2.25, 1.75, 0.0, 0.0, 0.0, 0.0]], 4, 1),
    "max-and-sum-disagree": grouped([[2.5, 2.0, 1.0, 0.5, 0.0, 0.0, 0.0, 0.0]], 4, 1),
    "kept-score-below-fill": grouped(ladder(1, 8), 4, 1, arrays={"selection_bias": [0.5] * 8}),
    "excluded-expert-chosen": grouped(
        *(ladder(1, 8), 4, 1), weights_from="masked_scores", arrays={"selection_bias": [0.5] * 8}
    ),
    "group-smaller-than-top": grouped(ROWS, 2, 1, top=2),
    "share-passes-over-better": sharing([[2.0, 0.0, 1.5, 0.0]]),
    "share-of-one": sharing([[2.0, 1.0, 1.5, 0.5]], 4),
    "share-of-several": sharing([[2.0, 1.0, 1.5, 0.5]]),
    "share-biased": sharing([[2.0, 1.0, 1.5, 0.5]], selection_bias=[0.5, 0.5, 0.0, 0.0]),
    "share-under-bias": sharing([[2.0, 1.0, 1.5, 0.5]], selection_bias=[0.0] * 4),
    "share-of-many-groups": sharing([[2.0, 1.0, 1.5, 0.5]]),
    "share-of-many-tokens": sharing([[2.0, 1.75, 1.5, 0.5]] * 256),
    "shared-slot": call(ROWS),
    "several-shared-slots": call(ROWS, shared_slots=SharedSlots()),
    "shared-slot-of-another-weight": call(ROWS, shared_slots=SharedSlots(count=2)),
    "shared-slot-beside-a-scale": call(ROWS, shared_slots=SharedSlots(), scale=0.0),
    "shared-slot-beside-a-norm": call(
        ROWS, 1, shared_slots=SharedSlots(), renormalize=Renormalize()
    ),
    "shared-slot-beside-a-tiny-norm": call(
        ROWS, shared_slots=SharedSlots(), renormalize=Renormalize(eps=1e-20), score="sigmoid"
    ),
    "share-tied": sharing([[1.0, 1.0, 0.5, 3.0, 2.0, 0.0]], 4),
    "one-group": grouped(ROWS, 2, 2),
    "all-groups-kept": grouped(ROWS, 1, 1),
    "two-groups": grouped(ROWS, 4, 2),
    "eight-groups": grouped(ladder(1, 16), 4, 2),
    "fewer-slots-than-groups": grouped(ladder(1, 8), 4, 2),
    "kept-groups-chosen-whole": grouped(ladder(1, 8), 4, 2, top_k=3),
    "groups-excluded": grouped(ROWS, 2, 2),
    "equals-make-a-group": grouped([[1.0, 1.0, 0.5, 0.5]], 2, 1, score="sigmoid"),
    "keeps-excluded-group": biased(
        ROWS, [0.0, 0.25, 0.5, NEVER], groups=Groups(count=2, kept=1, top=2)
    ),
    "masked-bias-excluded": biased(ROWS, [0.0, NEVER, 0.5, NEVER], groups=Groups(count=2, kept=2)),
    "several-groups-kept": grouped(ladder(1, 8), 4, 1),
    "ragged-groups": grouped(np.zeros((2, 6)), 2, 1),
    "groups-of-one": grouped(ROWS, 2, 1),
    "wide-groups": grouped(ladder(1, 64), 2, 1),
    "one-group-kept": grouped(ROWS, 1, 1),
    # Logits.
    "exact-logits": gated([[1.0, 2.0**-30]], [[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]]),
    "delta-decides": gated(ROWS, EYE, gate_delta=np.zeros((4, 4))),
    "fine-gate-bias": gated(np.zeros((1, 4)), EYE, gate_bias=[1.0, 1.0, 1 + 2**-7, 1.5]),
    "fine-delta": gated(ROWS, EYE, gate_delta=np.eye(4)[::-1]),
    "gate-bias-decides": gated(ROWS, EYE, gate_bias=[0.125] * 4),
    "large-logits": call([[88.0, 1.0, 0.0, -88.0]]),
    "all-negative-logits": call([[-1.0, -2.0, 0.0, -1.0]]),
    "negative-zero-logit": call([[-1.0, -0.0, 0.0, -1.0]]),
    "winners-in-one-lane": call(np.eye(1, 256, 32) + np.eye(1, 256, 65), 5),
    "winners-side-by-side": call(np.where(np.arange(256) % 2, 1.0, np.arange(256) / 128.0), 5),
    "ragged-columns": gated(np.eye(3, 320), np.eye(4, 320)),
    "last-bit-decides": call([1.0, 1.0 + 2.0**-20, 0.5, 0.25], 1, score="identity", **LATE),
    "zeros-tie": call([[0.0, -0.0, -1.0, -2.0]], 1),
    "all-zero-logits": call([[0.0, 0.0, 0.0, 0.25]]),
    "logits-above-17": call([[20.0, 16.0, 20.0, 1.0]]),
    "logits-below-minus-100": call([[-101.0, -102.0, -100.0, -200.0]]),
    "fine-logits": call([[1.0, 1.0 + 2.0**-7, 0.5, 0.25]], 1),
    "fine-gate": gated([[1.0]], [[1.0], [1.0 + 2.0**-7], [0.5], [0.25]], 1),
    "fine-logits-beside-16-bits": call([[1.0, 1.0 + 2.0**-7, 0.5, 0.25]], 1, dtype="bfloat16"),
    "fine-gate-beside-16-bits": call([FINE], 1, dtype="bfloat16", gate_dtype="float32"),
    "fine-linear-bias-beside-16-bits": wide(gate_bias=FINE),
    "fine-delta-beside-16-bits": wide(gate_delta=np.tile(FINE, (4, 1)).T),
    "wide-gate-shows-in-weights": call(ROWS, dtype="bfloat16", gate_dtype="float32"),
    "close-call": call([[1.0, 1.0 + 2.0**-13, 0.5, 0.25]], 1, score="identity", **LATE),
    # Logits that are not finite.
    "nan-row": call([[np.nan] * 4]),
    "input-norm-beside-epsilon": gated(ROWS, EYE, config={"input_norm": RmsNorm()}),
    "infinite-logit": gated([[3e38, -3e38, 0.0, 1.0]], EYE),
    "lost-expert": biased(ROWS, [0.0, NEVER, 0.0, 0.0]),
    "few-finite-logits": call([[1.0, 2.0, NEVER, NEVER]]),
    "no-finite-logit": call([[NEVER, NEVER, NEVER, 0.0]]),
    "all-but-first-lost": call([[NEVER, 1.0, NEVER, NEVER]]),
    "nan-logit": call([*ROWS[:1], [np.nan] * 4]),
    "plus-infinity": gated([[1.0, 1.0]], [[np.inf, 0.0], [np.inf, 0.0], [1.0, 0.0]]),
    # Scores.
    "saturated": call([[20.0, 24.0, 1.0, 30.0]], score="sigmoid"),
    "underflow": call([[-80.0] * 4], score="sigmoid"),
    "softplus-nearly-linear": call([[7.0, 1.0, 9.0, 0.0]], 1, score="sigmoid"),
    "small-sigmoid": call([[-9.0, -5.0, -11.0, 1.0]], score="sigmoid"),
    "tiny-softplus": call([[-24.0, -28.0, -19.0, -22.0]], 1, score="sqrtsoftplus"),
    # Selection.
    "tie-at-cut": call([[1.0, 1.0, 0.5, 0.25]]),
    "tie-of-positive-logits": call([[1.0, -1.0, -1.0, -2.0]]),
    "tie-of-negative-logits": call([[1.0, 0.0, 0.0, -2.0]]),
    "clear-winners": call(EVEN),
    **{f"winner-above-{n}": call(np.arange(n + 3) == n, 1) for n in (31, 127, 255, 511)},
    "every-expert-wins": call(ladder(3, 4), 1),
    "all-to-first": call([[2.0, 1.0, 0.0], [0.0, 2.0, 1.0]], 1),
    "all-to-last": call([[0.0, 1.0, 2.0], [0.0, 2.0, 1.0]], 1),
    "idle-expert": call(np.eye(4), 1),
    "table-repeats-an-expert": hashed([[1, 2], [0, 1]]),
    "hashed-and-scaled": hashed([[2, 0], [2, 3]], per_expert_scale=SCALES),
    "token-id-above-65535": hashed([[1, 2], [0, 1]]),
    "token-id-above-100000": hashed([[1, 2], [0, 1]]),
    # Weights.
    "experts-scaled-apart": call([[2.0, 0.0, 1.5, 1.0]], arrays={"per_expert_scale": SCALES}),
    "weights-apart": call(EVEN),
    "renormalized": call(ROWS, 1, renormalize=Renormalize()),
    "renormalized-alone": call(ROWS, renormalize=Renormalize()),
    "not-renormalized": call(ROWS, renormalize=Renormalize()),
    "least-norm": call([[-69.0, -70.0, -71.0, -72.0]], score="sigmoid", renormalize=Renormalize()),
    "tiny-norm": call([[-20.0] * 4], score="sigmoid", renormalize=Renormalize()),
    "norm-below-floor": call([[-20.0] * 4], **SIGMOID, renormalize=Renormalize(floor=1e-12)),
    "norm-beside-epsilon": call([[-40.0] * 4], **SIGMOID, renormalize=Renormalize(eps=1e-20)),
    "norm-of-another-order": call(ROWS, renormalize=Renormalize(order=2.0)),
    "floor-beside-epsilon": call([[-1.0] * 4], **SIGMOID, renormalize=BOTH),
    # the least of 16 beside a greater one: an honest sum may lose as much
    "narrow-norm-of-16": call([4.0] + [0.0] * 31, 16, **NARROW),
    "narrow-norm-of-32": call([0.0] * 64, 31, **NARROW),
    "scaled": call(ROWS, scale=0.0),
    "scaled-by-zero": call(ROWS, scale=-1.0),
    # Shared experts.
    "shared-singular": shared("plural"),
    "shared-plural": shared("mlp"),
    "shared-plural-of-two": shared("plural", width=1),
    "shared-wide": shared("plural", width=136),
    "shared-mlp": shared("singular"),
    "shared-absent": shared("mlp"),
    "shared-gate-half-open": shared("singular", gated=True),
    **NEAR_PERMUTATIONS,
    **NEAR_GRADIENTS,
    **NEAR_EXPERTS,
    **NEAR_EXPERT_GRADIENTS,
    **NEAR_REPLAYS,
    **NEAR_SHARDS,
    **NEAR_RANKS,
    **NEAR_CAPACITIES,
    **NEAR_PADDING,
    **NEAR_BALANCES,
    **NEAR_LAYERS,
}


@for_each({slug: slug for slug in NEAR})
def test_an_event_is_not_seen_where_it_nearly_is(slug: str) -> None:
    seen = EVENTS[slug].occurs(facts_of(NEAR[slug], WHOLE))
    assert not seen, f"the near miss of {slug} shows it: {EVENTS[slug].statement}"


def test_every_event_that_stands_alone_has_a_near_miss() -> None:
    alone = {slug for slug, event in EVENTS.items() if event.family is None}
    missing = alone - {*NEAR} - {NOWHERE_OUTSIDE}  # that one reads unclaimed calls only
    assert not missing, f"add a near miss of each of {sorted(missing)} to NEAR"


@pytest.mark.parametrize(
    ("rows", "seen"),
    [
        ([[-40.0, -41.0, -50.0, -60.0]], True),
        ([[-120.0, -121.0, -122.0, -123.0]], False),  # 0 in float32, where any weight is right
        ([[2.0, 2.0, 2.0, -60.0]], False),  # which two win is open, but -60 does not
        ([[2.0, -60.0, -60.0, -60.0], [-40.0, -60.0, -60.0, -60.0]], True),
    ],
)
def test_a_norm_is_tiny_where_it_has_to_be_distinguished_from_0(rows: Any, seen: bool) -> None:
    case = call(rows, score="sigmoid", renormalize=Renormalize())
    assert EVENTS["tiny-norm"].occurs(facts_of(case, WHOLE)) == seen
