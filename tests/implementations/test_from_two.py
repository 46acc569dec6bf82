"""Renormalised from two on, and scales above 0: one claim each."""

from __future__ import annotations

import pickle
import sys

import pytest

from moe_routing.implementations import (
    ANY,
    POSITIVE,
    Capabilities,
    Claim,
    FromTwo,
    Limits,
    in_common,
)
from moe_routing.implementations.wire_claims import capabilities_from_json
from moe_routing.reference import Renormalize

RULE = Renormalize(eps=1e-20)


@pytest.mark.parametrize(
    ("top_k", "several"),
    [
        (ANY, range(2, sys.maxsize)),
        (range(1, 9), range(2, 9)),
        (range(1, 9, 3), range(4, 9, 3)),
        ((1, 2, 8), (2, 8)),
    ],
    ids=str,
)
def test_one_claim_is_those_of_one_expert_and_of_more(top_k: object, several: object) -> None:
    one, more = Capabilities(
        claims=(Claim.plain(name="sigmoid", top_k=top_k, renormalize=(FromTwo(RULE),)),)
    ).claims
    assert (one.name, one.top_k, one.renormalize) == ("sigmoid", (1,), (None,))
    assert (more.name, more.top_k, more.renormalize) == ("sigmoid", several, (RULE,))


@pytest.mark.parametrize(("top_k", "rule"), [((1,), None), ((2, 4), RULE)])
def test_a_part_that_the_claim_does_not_have_is_none(top_k: object, rule: object) -> None:
    (claim,) = Capabilities(claims=(Claim.plain(top_k=top_k, renormalize=(FromTwo(RULE),)),)).claims
    assert claim.renormalize == (rule,)


def test_a_part_beyond_the_limits_is_left_out() -> None:
    claim = Claim.plain(renormalize=(FromTwo(RULE),))
    (only,) = Capabilities(claims=(claim,), limits=Limits(max_top_k=1)).claims
    assert only.renormalize == (None,)
    whole = Capabilities(claims=(claim, Claim.plain(score=("sigmoid",))))
    assert len(whole.claims) == 3
    assert Capabilities(claims=whole.claims) == whole


def test_no_other_value_is_a_rule() -> None:
    with pytest.raises(ValueError, match=r"Expected FromTwo\.rule to be a Renormalize"):
        FromTwo(None)
    with pytest.raises(ValueError, match=r"each value of Claim\.renormalize to be None or a"):
        Claim(renormalize=(2,))


def test_positive_is_every_number_above_0_and_a_value_of_the_scale_alone() -> None:
    assert [n in POSITIVE for n in (1.0, 1e-30, 3, 0.0, -1.0, True, "1")] == [
        *(True, True, True, False, False, False, False)
    ]
    assert pickle.loads(pickle.dumps(POSITIVE)) is POSITIVE
    with pytest.raises(ValueError, match=r"Expected Claim\.top_k to be a tuple of"):
        Claim(top_k=POSITIVE)


def test_what_is_positive_of_two_scales_is_common() -> None:
    positive, some = (Capabilities(claims=(Claim(scale=x),)) for x in (POSITIVE, (0.0, 2.5)))
    assert in_common({"one": positive, "two": some}).claims[0].scale == (2.5,)
    assert in_common({"one": positive, "two": Capabilities()}).claims[0].scale is POSITIVE
    assert positive.narrowed(scale=(0.0, 2.5)).claims[0].scale == (2.5,)
    assert positive.narrowed(scale=(0.0,)).claims == ()


def test_both_come_from_other_processes() -> None:
    said = {"scale": "positive", "renormalize": [{"eps": 1e-20, "from_two": True}, None]}
    one, more = capabilities_from_json({"claims": [said]}).claims
    assert one.scale is POSITIVE
    assert (one.renormalize, more.renormalize) == ((None,), (RULE, None))
