"""Events: each is shown by its constructed case, the plainest that is claimed."""

from __future__ import annotations

import pytest
from for_each import for_each

from moe_routing.conformance import Case
from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.cases.kinds import facts_of
from moe_routing.conformance.events import EVENTS
from moe_routing.conformance.events.registry import event as register
from moe_routing.implementations import Capabilities, Claim, load_adapter
from moe_routing.reference import (
    RouterConfig,
    check_inputs,
)

WHOLE = Capabilities(claims=(Claim.whole(),))
NOWHERE_OUTSIDE = "outside-claims"  # nothing lies outside the whole specification


def shows(slug: str, case: AnyCase, capabilities: Capabilities) -> bool:
    """Whether the case shows the event, and is a call that a backend must answer."""
    if isinstance(case, Case):
        check_inputs(case.config, case.inputs)
        RouterConfig(**vars(case.config))
        claimed = capabilities.admits(case.config, case.inputs)
        assert claimed != (slug == NOWHERE_OUTSIDE), f"{slug} is shown by a call of {case.config}"
    return EVENTS[slug].occurs(facts_of(case, capabilities))


LARGE = (
    "gradient-tokens",
    "gradient-exact-sum",
    "gradient-whole-blocks",
    "gradient-experts",
    "all-tie",
    "winners-",
    "lost-block",
    "padded-tokens",
    "replayed-tokens",
    "replayed-id",
    "winner",
    "batch",
    "ragged",
    "routes",
    "tokens-equal",
    "top-k",
    "odd-top-k",
    "experts",
    "published",
    "preset",
    "close-call",
    "wide",
    "eight",
    "bulk",
    "narrow-norm",
    "sizes",
    "shape",
    "grouped-shape",
    "softmax-of-more",
    "bias-decides-beyond",
    "each-top-k",
    "biased-in-many",
    "grouped-in-many",
    "share-of-many",
    "shared-slot-at",
    "fine-gate-at",
    "large-logit-of",
)


@for_each({slug: slug for slug in EVENTS if slug != NOWHERE_OUTSIDE})
def test_an_event_is_shown_by_its_constructed_case(slug: str) -> None:
    case = EVENTS[slug].constructed(WHOLE)
    assert case is not None, f"{slug} is unreachable though everything is claimed"
    assert shows(slug, case, WHOLE)
    assert case.recipe in ("constructed", "eighths", "series")
    if isinstance(case, Case) and not slug.startswith(LARGE):
        assert case.inputs.num_tokens <= 16, f"{case.size} is not the plainest"
        assert case.config.num_experts <= 8, f"{case.size} is not the plainest"


@pytest.mark.parametrize("name", ["scattermoe", "sonicmoe", "torch"])
def test_an_event_is_shown_under_the_claims_of_shipped_adapters_or_not_at_all(name: str) -> None:
    capabilities = load_adapter(name).capabilities()
    shown = {slug: event.constructed(capabilities) for slug, event in EVENTS.items()}
    for slug, case in shown.items():
        assert case is None or shows(slug, case, capabilities), slug
    found = [slug for slug, case in shown.items() if case is not None]
    assert {"any-case", "tie-at-cut", "bias-decides", "empty-batch"} <= {*found}


def test_an_event_says_what_it_is() -> None:
    assert EVENTS[NOWHERE_OUTSIDE].constructed(WHOLE) is None
    for slug, event in EVENTS.items():
        assert event.slug == slug
        assert slug == slug.lower().replace(" ", "-")
        assert event.statement, slug
        assert not event.statement.endswith("."), slug


def test_a_slug_is_taken_once() -> None:
    with pytest.raises(ValueError, match="Cannot register event 'any-case': the slug is taken"):
        register("any-case", "another", lambda bounds: True)(lambda capabilities: [])
