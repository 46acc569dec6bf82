"""Backends of narrow claims: called with nothing else, and checked all the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from narrow_claims import NARROW
from nightly import SERIES, nightly

from moe_routing.conformance import Case, Plan, select_clauses
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.events import EVENTS, members
from moe_routing.conformance.events.stock import STOCK
from moe_routing.implementations import Capabilities
from moe_routing.reference import RouterConfig, RouterInputs, Routing, route


@pytest.fixture(scope="module", params=NARROW)
def name(request: pytest.FixtureRequest) -> str:
    """The claims, by name: all tests of one follow each other, and find what was constructed."""
    found: str = request.param
    return found


class Router:
    """A right router that holds every call against its claims; ``off`` is added to weights."""

    name = "narrow"

    def __init__(self, capabilities: Capabilities, off: float = 0.0) -> None:
        self._capabilities, self._off = capabilities, off

    def capabilities(self) -> Capabilities:
        return self._capabilities

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        self._capabilities.require(config, inputs)
        if "strided" not in self._capabilities.layouts:
            bad = [name for name, x in inputs.arrays().items() if not x.flags.c_contiguous]
            assert not bad, f"{bad} are not laid out in rows"
        right = route(RouterConfig(**vars(config)), inputs)
        return replace(right, weights=right.weights + np.float64(self._off))


LONG = ("weights.match", "selection.valid-top-k")
"""Clauses that construct as much as all others: one of them for each of the claims, in turn."""

CHECKED = (
    "layout.*",
    "robustness.answers",
    "robustness.infinite-logit",
    "robustness.empty-batch",
    "robustness.nan-row",
    "invariance.token-order",
    "invariance.strided-input",
)
BATCHES = ("logits", "E in eights", "T to 16", "K=8 in groups")
"""Claims under which batches of every size are checked; under the others the first few."""


def test_a_right_router_gets_the_calls_that_it_claims_and_no_others(name: str) -> None:
    long = LONG[[*NARROW].index(name) % len(LONG)]
    batches = ["invariance.batch-split"] * (name in BATCHES)
    series = None if name in BATCHES else nightly(SERIES, None)
    for clause in select_clauses([*CHECKED, long, *batches]):
        plan = Plan(clauses=[clause], max_examples=3, series=series)
        result = check_clause(Router(NARROW[name]), clause, plan)
        assert result.status in ("pass", "unsupported"), f"{clause.id}: {result.message}"


def test_a_wrong_router_is_caught_however_little_it_claims(name: str) -> None:
    clause = CLAUSES["weights.match"]
    plan = Plan(clauses=[clause], max_examples=10)
    result = check_clause(Router(NARROW[name], off=1.0), clause, plan)
    assert result.status == "fail", f"{result.status}: {result.message}"
    case = result.case
    assert NARROW[name].admits(case.config, case.inputs), "the case should be one it claims"


class Ragged(Router):
    """Answers groups of unequal size, where nothing else about the call is unclaimed."""

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        self._capabilities.require(config, inputs)
        if config.groups is not None and config.num_experts % config.groups.count:
            shape = (inputs.num_tokens, config.top_k)
            return Routing(weights=np.ones(shape), expert_ids=np.zeros(shape, np.int64))
        return super().route(config, inputs)


def test_ragged_groups_are_tried_wherever_a_claim_has_room_for_them(name: str) -> None:
    clause = CLAUSES["groups.ragged-rejected"]
    plan = Plan(clauses=[clause], max_examples=3)
    result = check_clause(Ragged(NARROW[name]), clause, plan)
    claims = clause.narrowed(NARROW[name]).claims
    assert result.status == ("fail" if claims and name != "E to 3" else "unsupported")
    assert check_clause(Router(NARROW[name]), clause, plan).status in ("pass", "unsupported")


# What a narrow backend cannot be shown, exactly: everything else has to be constructed.
STRIDES = {
    "strided-input",
    "transposed-hidden",
    "spaced-hidden",
    "transposed-gate",
    "spaced-gate",
    "spaced-bias",
}
UNREACHABLE: dict[str, set[str]] = {
    "logits": {
        "published-width",
        "published-width-of-groups",
        "hidden-above-4096",
        "fine-gate",
        "fine-gate-at:7168-columns",
        "gradient-columns-above-128",
        "gradient-columns-above-4096",
        "gradient-experts-above-512",
        "fine-gate-bias",
        "fine-delta",
        "ragged-columns",
        "fine-logits-beside-16-bits",
        "fine-hidden-above-4096",
        "fine-delta-beside-16-bits",
        "fine-linear-bias-beside-16-bits",
        "gradient-wide-gate",
        "input-norm-beside-epsilon",
        "norm-scale-decides",
        "delta-decides",
        "gate-bias-decides",
        "infinite-logit",
        "gradient-gate",
        "gradient-delta",
        "gradient-gate-bias",
        "gradient-hidden-scale",
        "gradient-exact-sum",
        "padded-infinite",
        *members("wide"),
        *(slug for slug in EVENTS if slug.startswith("layer-")),
    },
    "rows": STRIDES | {"replayed-strided", "spread-large:32-experts", "gradient-strided-cotangent"},
    "E in eights": {
        "experts:5",
        "experts:60",
        "published:7-experts-top-5",
        "published:60-experts-top-4",
        "layer-large:257-experts",
    },
    "T to 16": {
        *(slug for slug in members("batch") if int(slug.removeprefix("batch:")) > 16),
        "batch-above-16",
        "fine-gate-at:8193-tokens",
        "shared-slot-at:16385-tokens",
        "batch-above-256",
        "batch-above-2048",
        "batch-above-50000",
        "share-of-many-tokens",
        "ragged-batch",
        "ragged-routes",
        "routes-above-65535",
        "bulk-of-many-experts",
        "batch-of-many-experts",
        "gradient-tokens-above-256",
        "gradient-tokens-above-1024",
        "gradient-whole-blocks-of-1024",
        "layer-large:70-tokens",
        "layer-large:1030-tokens",
        "padded-tokens-above-1024",
        "replayed-tokens-above-256",
        "gradient-exact-sum",
    },
    "linear bias": {"layer-biased-experts"},
}


def test_what_can_be_shown_under_narrow_claims_is_constructed(name: str) -> None:
    capabilities = NARROW[name]
    stocked = {s: next(STOCK.checked(each, capabilities), None) for s, each in EVENTS.items()}
    shown = {slug: each and each.case for slug, each in stocked.items()}
    for slug, case in shown.items():
        if isinstance(case, Case) and slug != "outside-claims":
            assert capabilities.admits(case.config, case.inputs), slug
    missing = {slug for slug, case in shown.items() if case is None} - {"outside-claims"}
    for slug in members("preset"):
        whole = EVENTS[slug].constructed(Capabilities())
        claimed = capabilities.admits(whole.config, whole.inputs)
        assert shown[slug] is not None or not claimed, slug
    missing -= {*members("preset")}  # a model's router is claimed whole or not at all
    if name in UNREACHABLE:
        assert missing == UNREACHABLE[name]
    assert len(missing) < len(EVENTS), "nothing at all is constructed"
