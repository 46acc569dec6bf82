"""Bugs that drawn cases meet too seldom, by luck or never: each has a constructed case."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rare_large import LARGE
from rare_mixed import MIXED, PERMUTED
from rare_stages import (
    absent_in_softmax,
    bare_z,
    by_division,
    by_eager,
    if_it_sums,
    in_half,
    in_turn,
    in_two_runs,
    less_an_early_maximum,
    of_expert,
    one_bit_off,
    only,
    past,
    promising,
    rows_past,
    running_softmax,
    scaled_by_the_last,
    twice_on_the_first,
    wide_if,
)

from moe_routing.conformance.cases.kinds import trial_of
from moe_routing.conformance.checking.outcome import evaluate
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.events import EVENTS
from moe_routing.conformance.zoo.mutants.limits import keeping
from moe_routing.conformance.zoo.mutants.shared_slots import FUSED
from moe_routing.conformance.zoo.mutants.wide_gates import WIDE
from moe_routing.conformance.zoo.residents import WHOLE, Staged
from moe_routing.conformance.zoo.router import (
    balancer,
    learner,
    permuter,
    replayer,
    runner,
    sharder,
    stages,
)
from moe_routing.conformance.zoo.router import differentiator as gradients
from moe_routing.conformance.zoo.router.router import StagedRouter
from moe_routing.implementations import Capabilities

router, run, learn = StagedRouter, runner.StagedRunner, learner.StagedLearner
permute, go_back = permuter.StagedPermuter, gradients.StagedDifferentiator
replay, balance = replayer.StagedReplayer, balancer.StagedBalancer
shard = sharder.StagedSharder
up, gate = learner.LEARNING["of_up_weight"], gradients.of_gate_weight

RARE: dict[tuple[str, str], tuple[Callable[..., Staged], str, Any, Capabilities]] = {
    ("layout.shared-slots", "shared-slot-at:257-experts"): (
        router,
        "fused_ids",
        lambda w: stages.fused_ids(w) % 256,
        FUSED,
    ),
    ("layout.shared-slots", "shared-slot-at:1026-experts"): (
        router,
        "fused_ids",
        lambda w: stages.fused_ids(w) % 1024,
        FUSED,
    ),
    ("weights.shared-slots", "shared-slot-at:16385-tokens"): (
        router,
        "fused_weights",
        past(8192, stages.fused_weights),
        FUSED,
    ),
    ("logits.float32-gate", "fine-gate-at:8193-tokens"): (
        router,
        "gate_weight",
        wide_if(lambda w: w.num_tokens > 1024),
        WIDE,
    ),
    ("logits.float32-gate", "fine-gate-at:7168-columns"): (
        router,
        "gate_weight",
        wide_if(lambda w: w.inputs.hidden_size >= 2048),
        WIDE,
    ),
    ("experts.match", "ran-large:1030-columns"): (
        run,
        "weighted",
        past(512, runner.weighed, 1),
        WHOLE,
    ),
    ("experts.match", "ran-large:1030-width"): (
        run,
        "inner",
        past(512, runner.activated, 1),
        WHOLE,
    ),
    ("experts.match", "ran-large:1030-experts"): (run, "weighted", of_expert(512), WHOLE),
    ("experts.match", "ran-large:32774-routes"): (
        run,
        "weighted",
        past(16_384, runner.weighed),
        WHOLE,
    ),
    ("experts.gradients", "learned-large:130-columns"): (
        learn,
        "of_hidden",
        past(64, learner.of_hidden, 1),
        WHOLE,
    ),
    ("experts.gradients", "learned-large:130-width"): (
        learn,
        "of_up_weight",
        past(64, up, 1),
        WHOLE,
    ),
    ("experts.gradients", "learned-large:130-experts"): (
        learn,
        "of_up_weight",
        past(64, up),
        WHOLE,
    ),
    ("experts.gradients", "learned-large:1030-routes"): (
        learn,
        "of_up_weight",
        rows_past(512),
        WHOLE,
    ),
    ("permutation.counts", "permuted-experts:1030"): (
        permute,
        "reported_counts",
        past(512, lambda w: w.counts),
        WHOLE,
    ),
    ("permutation.weights-follow", "permuted-routes-above-65535"): (
        permute,
        "weights",
        past(16_384, permuter.weighed),
        WHOLE,
    ),
    ("permutation.tiles", "permuted-tokens:4097"): (
        permute,
        "tile_experts",
        past(256, permuter.tiled),
        WHOLE,
    ),
    ("replay.absent-rows", "replayed-absent-in-softmax"): (
        replay,
        "gathered",
        absent_in_softmax,
        WHOLE,
    ),
    ("replay.absent-rows", "replayed-absent-scaled"): (
        replay,
        "weights",
        scaled_by_the_last,
        WHOLE,
    ),
    ("gradients.gate-weight", "gradient-columns-above-128"): (
        go_back,
        "of_gate_weight",
        past(64, gate, 1),
        WHOLE,
    ),
    ("gradients.expert-scale", "gradient-expert-scale-by-zero"): (
        go_back,
        "of_per_expert_scale",
        by_division,
        WHOLE,
    ),
    ("selection.ties-to-the-lower-id", "all-tie:66-experts"): (
        router,
        "expert_ids",
        in_turn(16),
        promising(ties="lowest"),
    ),
    ("layout.slots-descend", "top-k-above-15"): (
        router,
        "expert_ids",
        in_two_runs(8),
        promising(slots="descending"),
    ),
    ("invariance.batch-bits", "batch:512"): (
        router,
        "weights",
        one_bit_off(lambda w: w.num_tokens == 512),
        promising(same_bits=True),
    ),
    ("invariance.batch-bits", "batch-above-2048"): (
        router,
        "weights",
        one_bit_off(lambda w: w.num_tokens > 1024),
        promising(same_bits=True),
    ),
    ("robustness.served-by", "float16-input"): (
        router,
        "answer",
        by_eager(lambda w: w.inputs.dtype == "float16"),
        promising(served_by=("fused",)),
    ),
    ("robustness.served-by", "experts-above-1024"): (
        router,
        "answer",
        by_eager(lambda w: w.config.num_experts > 512),
        promising(served_by=("fused",)),
    ),
    ("logits.lora-delta", "fine-delta"): (
        router,
        "gate_delta",
        lambda w: in_half(w.inputs.gate_delta),
        WHOLE,
    ),
    ("logits.gate-bias", "fine-gate-bias"): (
        router,
        "gate_bias",
        lambda w: in_half(w.inputs.gate_bias),
        WHOLE,
    ),
    ("selection.bias-steers", "bias-sums-to-0"): (router, "biased", if_it_sums, WHOLE),
    ("selection.valid-top-k", "winners-side-by-side"): (
        router,
        "expert_ids",
        keeping(6, lambda ids: ids // 16),
        WHOLE,
    ),
    ("selection.valid-top-k", "ragged-columns"): (
        router,
        "gate_input",
        lambda w: w.hidden * (np.arange(w.inputs.hidden_size) < w.inputs.hidden_size // 64 * 64),
        WHOLE,
    ),
    ("selection.valid-top-k", "last-bit-decides"): (
        router,
        "expert_ids",
        lambda w: stages.top_k(np.round(w.competing * 2.0**20), w.config.top_k),
        WHOLE,
    ),
    ("weights.match", "batch-above-50000"): (
        router,
        "weights",
        past(65_535, stages.weights),
        WHOLE,
    ),
    ("weights.tiny-norm", "least-norm"): (
        router,
        "norm",
        lambda w: np.maximum(stages.norm(w), np.float32(1e-20)),
        WHOLE,
    ),
    ("robustness.infinite-logit", "lost-block-of:64-experts"): (
        router,
        "scores",
        running_softmax(32),
        WHOLE,
    ),
    ("robustness.large-logits", "large-logit-of:130-experts"): (
        router,
        "scores",
        less_an_early_maximum,
        WHOLE,
    ),
    ("shards.sum", "spread-large:260-tokens"): (shard, "ids", only(rows=256), WHOLE),
    ("shards.sum", "spread-large:32-experts"): (shard, "ids", only(experts=8), WHOLE),
    ("shards.sum", "spread-large:12-ranks"): (shard, "ids", only(ranks=8), WHOLE),
    ("shards.sum", "spread-large:3-places"): (shard, "turn", twice_on_the_first, WHOLE),
    ("balance.z-loss", "balanced-large-logits"): (balance, "z_values", bare_z, WHOLE),
    **MIXED,
    **PERMUTED,
    **LARGE,
}
"""What is wrong, by the clause and the event that show it."""


@pytest.mark.parametrize(("clause", "event"), RARE)
def test_the_constructed_case_catches_it_and_passes_a_right_one(clause: str, event: str) -> None:
    make, stage, wrong, claims = RARE[clause, event]
    assert event in CLAUSES[clause].events
    case = EVENTS[event].constructed(CLAUSES[clause].narrowed(claims))
    assert case is not None
    right = {"answer": by_eager(lambda w: False)} if claims.promises.served_by else {}
    for stages_of, fails in (({stage: wrong}, True), (right, False)):
        with np.errstate(all="ignore"):
            trial = trial_of(make("rare", stages_of, claims), case, CLAUSES[clause].method)
            outcome = evaluate(CLAUSES[clause], trial)
        assert outcome.error is None, outcome.error
        assert (outcome.failure is not None) == fails, outcome.failure
