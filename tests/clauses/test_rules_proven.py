"""A tie of a clause to a rule is true: some router that breaks the rule fails the clause."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rule_breakers import BREAKERS

from moe_routing.conformance import Plan
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.zoo import MUTANTS
from moe_routing.conformance.zoo.residents import Staged

BY_MUTANTS = {
    "PIPE-1": "norm-over-the-batch halves-viewed-across-tokens",
    "PIPE-4": "bfloat16-logits-returned bfloat16-scores float16-weights",
    "LOG-1": "bfloat16-logits-returned bfloat16-logits lora-delta-ignored linear-bias-ignored",
    "LOG-6": "probabilities-returned-as-logits",
    "SCO-1": "softmax-over-tokens",
    "SCO-2": "softmax-without-maximum",
    "SCO-3": "bfloat16-scores",
    "SCO-4": "index-packed-in-mantissa",
    "GRP-1": "groups-ranked-without-bias",
    "GRP-2": "group-score-is-maximum",
    "GRP-4": "zero-group-fill",
    "GRP-5": "groups-ignored",
    "GRP-7": "bias-dropped-for-one-group",
    "GRP-8": "ragged-groups-mix-tokens k-above-kept-experts-answered",
    "SEL-1": "bias-ignored",
    "SEL-2": "padding-lane-is-expert-zero padding-lane-beats-infinity",
    "SEL-3": "ties-take-turns",
    "SEL-4": "bias-before-the-score",
    "SEL-5": "bfloat16-bias",
    "SEL-7": "bias-remembered",
    "SEL-8": "only-first-256-experts",
    "SEL-9": "last-choice-lost-at-k-equals-e",
    "SEL-10": "best-starts-at-zero",
    "WGT-1": "bias-in-weights",
    "WGT-2": "weights-sorted-apart",
    "WGT-5": "epsilon-dropped renormalisation-dropped",
    "WGT-6": "renormalized-though-off",
    "WGT-7": "scale-twice",
    "WGT-9": "renormalisation-only-above-top-1",
    "WGT-10": "float16-weights bfloat16-weights-in-float32",
    "WGT-11": "renormalisation-dropped",
    "LAY-1": "rows-padded-to-eight empty-batch-flattened",
    "LAY-2": "weights-sorted-apart flat-scores-sorted-apart",
    "LAY-4": "flat-slot-major flat-ids-in-64-bits",
    "LAY-5": "map-padded-with-experts map-keeps-all-probabilities",
    "LAY-6": "float16-weights",
    "LAY-8": "ids-transposed-view",
    "LAY-9": "ids-in-8-bits tuple-swapped",
    "INV-1": "raw-weights-every-second-call ring-of-three-answers",
    "INV-2": "tail-rows-left-unwritten",
    "INV-3": "bfloat16-logits-above-8-tokens",
    "INV-5": "softmax-without-maximum",
    "INV-6": "strided-hidden-read-as-rows",
    "INV-7": "hidden-jittered-in-place",
    "INV-8": "float-mode-left-changed",
    "REP-1": "ring-of-eight-answers",
    "REP-2": "gate-packed-once",
    "REP-3": "scratch-shared-by-threads",
    "REP-4": "one-call-in-fifty",
    "ROB-1": "empty-batch-flattened",
    "ROB-2": "one-token-squeezed",
    "ROB-3": "tail-of-power-of-two-lost last-choice-lost-at-k-equals-e",
    "ROB-4": "softmax-without-maximum",
    "ROB-6": "all-negative-row-takes-the-first",
    "ROB-7": "nan-row-repeats-an-expert",
    "ROB-8": "nan-row-poisons-the-batch",
    "ROB-9": "nan-row-blurs-the-others",
    "ROB-10": "nan-row-raises",
    "ROB-11": "nan-row-poisons-the-batch",
    "ROB-12": "k-above-e-clamped ragged-groups-mix-tokens",
    "ROB-13": "unclaimed-routed-by-softmax",
    "ROB-14": "softmax-raises",
    "ROB-15": "infinite-softplus-is-nan",
    "DIS-1": "always-softmax",
    "DIS-2": "always-sigmoid",
    "DIS-3": "bias-sought-on-the-gate-only",
    "DIS-4": "zero-bias-taken-for-none",
    "SHA-1": "shared-expert-dropped shared-experts-dropped shared-mlp-dropped",
    "SHA-2": "shared-gate-skipped",
    "SHA-6": "absent-shared-expert-runs",
    "PERM-1": "repeated-expert-run-once",
    "PERM-2": "absent-to-the-first-expert",
    "PERM-3": "ends-for-starts",
    "PERM-4": "counts-of-the-first-slot",
    "PERM-5": "offsets-start-at-1",
    "PERM-6": "not-aligned",
    "PERM-7": "empty-expert-takes-nothing",
    "PERM-8": "a-block-too-many",
    "PERM-9": "padding-is-the-number-of-routes",
    "PERM-10": "padding-before-routes",
    "PERM-11": "buffer-for-the-mean",
    "PERM-12": "inverse-is-the-order",
    "PERM-13": "gather-by-route",
    "PERM-14": "last-tile-lost",
    "PERM-15": "stable-order-lost",
    "PERM-16": "weights-left-in-place",
    "PERM-17": "second-call-differs",
    "PERM-18": "zero-tokens-leave-counts-unwritten",
    "PERM-19": "routes-slot-major",
    "PERM-20": "sentinels-cleared-in-place",
    "GRAD-1": "signs-swapped",
    "GRAD-2": "mean-term-dropped",
    "GRAD-3": "norm-detached one-expert-passes",
    "GRAD-4": "scale-missing-in-backward",
    "GRAD-5": "softcap-passes",
    "GRAD-6": "gate-transposed-in-backward delta-left-out-of-backward input-norm-detached",
    "GRAD-7": "last-token-lost",
    "GRAD-8": "gate-bias-gradient-of-one-token",
    "GRAD-9": "delta-never-learns",
    "GRAD-10": "expert-scale-of-its-neighbour",
    "GRAD-11": "hidden-scale-of-the-scaled-state",
    "GRAD-12": "selection-bias-gets-a-gradient",
    "GRAD-13": "mask-not-differentiated",
    "GRAD-14": "exponential-overflows-in-backward",
    "GRAD-15": "duplicate-written-over",
    "GRAD-16": "replayed-experts-get-nothing",
    "GRAD-17": "nan-row-zeroes-all",
    "GRAD-18": "gradient-clipped",
    "GRAD-19": "no-tokens-no-gradient",
    "GRAD-20": "cotangent-scaled-in-place",
    "EXP-1": "last-slot-wins",
    "EXP-2": "silu-for-gelu",
    "EXP-3": "gate-and-up-swapped",
    "EXP-4": "weights-in-bfloat16",
    "EXP-5": "sums-in-16-bits",
    "EXP-6": "weight-on-the-input",
    "EXP-7": "weight-on-the-output",
    "EXP-8": "down-bias-not-weighted",
    "EXP-9": "masked-weights-unused",
    "EXP-10": "zero-times-infinity",
    "EXP-11": "absent-runs-the-first-expert",
    "EXP-12": "token-without-routes-unwritten",
    "EXP-13": "every-expert-run-and-masked",
    "EXP-14": "empty-expert-shifts-the-weights",
    "EXP-15": "zero-tokens-divide",
    "EXP-16": "weight-of-another-slot",
    "EXP-17": "repeated-expert-added-once",
    "EXP-18": "last-rows-of-a-tile-lost",
    "EXP-19": "hidden-states-overwritten",
    "EXP-20": "output-added-up",
    "EXP-21": "hidden-misses-a-slot",
    "EXP-22": "last-rows-of-a-matrix-lost",
    "EXP-23": "bias-gradient-of-one-row",
    "EXP-24": "gradient-of-a-weight-misses-the-bias",
    "EXP-25": "matrix-gradient-in-16-bits",
    "EXP-26": "absent-route-gets-a-gradient",
    "EXP-27": "empty-expert-gets-a-gradient",
    "EXP-28": "expert-inputs-overwritten",
    "RPL-1": "replay-is-a-no-op replayed-ids-in-8-bits",
    "RPL-2": "weights-of-the-best-replayed",
    "RPL-3": "selection-bias-in-replayed-weights group-mask-on-replayed-experts",
    "RPL-4": "repeated-weights-added-up",
    "RPL-5": "absent-replays-the-last-expert absent-keeps-its-recorded-weight",
    "RPL-6": "absent-in-the-norm",
    "RPL-7": "recorded-weights-ignored",
    "RPL-8": "replay-computes-otherwise",
    "RPL-9": "rows-inverted",
    "RPL-10": "padding-has-the-last-row",
    "RPL-11": "next-layer-replayed",
    "RPL-12": "mtp-layer-gets-the-decoders-routes",
    "RPL-13": "absent-replay-the-last-batch",
    "RPL-14": "record-taken-for-contiguous",
    "RPL-15": "record-sorted-in-place",
    "RPL-16": "replay-of-no-tokens-raises",
}
"""Mutants of the zoo that break a rule; several, where one does not show in each of its clauses."""

TIES = [(each.id, rule) for each in CLAUSES.values() for rule in each.rules]


def breakers(rule: str) -> Iterator[Staged]:
    """Yield routers that break ``rule``."""
    yield from (make() for make in BREAKERS.get(rule, ()))
    yield from (MUTANTS[name].adapter() for name in BY_MUTANTS.get(rule, "").split())


@pytest.mark.parametrize(("id_", "rule"), TIES)
def test_a_router_that_breaks_the_rule_fails_the_clause(id_: str, rule: str) -> None:
    clause, found = CLAUSES[id_], []
    plan = Plan(clauses=[clause], max_examples=100)
    for router in breakers(rule):
        result = check_clause(router, clause, plan)
        if result.status == "fail" or result.message.startswith("malformed answer: "):
            return
        found.append(f"{result.status} {result.message}")
    fix = "name one in BY_MUTANTS here, or write it in tests/helpers/rule_breakers.py"
    pytest.fail(f"no router that breaks {rule} fails {id_}: {found}; {fix}", pytrace=False)
