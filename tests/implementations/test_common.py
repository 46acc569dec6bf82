"""What several backends claim alike, and the one line on what they do not."""

from __future__ import annotations

import pytest

from moe_routing.implementations import (
    ANY,
    Capabilities,
    Claim,
    GroupRule,
    Limits,
    NothingInCommon,
    in_common,
)
from moe_routing.reference import RouterConfig, RouterInputs

PLAIN = Capabilities(claims=(Claim.plain(),))


def common(one: Capabilities, *others: Capabilities) -> Capabilities:
    return in_common(dict(zip(("one", "two", "three"), (one, *others), strict=False)))


def claiming(**axes: object) -> Capabilities:
    return Capabilities(claims=(Claim(**axes),))


def test_the_whole_specification_and_a_claim_have_that_claim() -> None:
    assert common(Capabilities(), PLAIN).claims == PLAIN.claims
    assert common(PLAIN, Capabilities(), PLAIN).claims == PLAIN.claims


def test_each_axis_keeps_what_both_permit() -> None:
    one = claiming(top_k=range(2, 9), score=("softmax", "sigmoid"), scale=ANY)
    two = claiming(top_k=range(1, 5), score=("sigmoid", "sqrtsoftplus"), scale=(1.0, 2.5))
    (claim,) = common(one, two).claims
    assert (claim.top_k, claim.score, claim.scale) == (range(2, 5), ("sigmoid",), (1.0, 2.5))
    (claim,) = common(one, claiming(top_k=(1, 8))).claims
    assert claim.top_k == (8,)


def test_rules_of_groups_keep_the_settings_that_follow_both() -> None:
    one = claiming(groups=(None, GroupRule(top=ANY, fill=(0.0,))))
    two = claiming(groups=(GroupRule(top=(1, 2)), GroupRule(top=(2,), fill=(0.0,))))
    (claim,) = common(one, two).claims
    assert claim.groups == (GroupRule(top=(1, 2), fill=(0.0,)), GroupRule(top=(2,), fill=(0.0,)))


def test_sizes_dtypes_and_layouts_are_those_of_the_narrowest() -> None:
    one = Capabilities(limits=Limits(max_experts=64, experts_multiple_of=4), layouts=("strided",))
    two = Capabilities(
        limits=Limits(max_experts=256, max_tokens=8, experts_multiple_of=6),
        dtypes=("bfloat16", "float32"),
        layouts=("contiguous",),
    )
    found = common(one, two)
    assert found.limits == Limits(max_experts=64, max_tokens=8, experts_multiple_of=12)
    assert set(found.dtypes) == {"bfloat16", "float32"}
    assert found.layouts == ("contiguous",)


def test_with_one_that_takes_logits_others_are_given_plain_ones() -> None:
    takes = Capabilities(takes="logits", claims=(Claim.plain(gate_bias=(True,)),))
    found = common(takes, PLAIN)
    assert (found.takes, found.claims[0].gate_bias) == ("logits", (False,))
    inputs = RouterInputs.from_logits([[1.0, 0.0, 2.0]])
    assert all(each.admits(RouterConfig(num_experts=3, top_k=1), inputs) for each in (takes, PLAIN))


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ([claiming(score=("sigmoid",))], "one and two .*: score=softmax and sigmoid"),
        ([Capabilities(), claiming(gate_bias=(True,))], "one with two and three .*: gate_bias="),
        ([Capabilities(claims=())], "claims nothing"),
        ([Capabilities(dtypes=("float16",))], "dtypes=float32 and float16"),
        ([claiming(top_k=(2, 3)), claiming(top_k=(4,))], "top_k=2/3 and 4"),
    ],
)
def test_where_nothing_is_common_one_line_names_the_axis(
    others: list[Capabilities], words: str
) -> None:
    one = Capabilities(claims=PLAIN.claims, dtypes=("float32",))
    with pytest.raises(NothingInCommon, match=words) as raised:
        common(one, *others)
    assert "\n" not in str(raised.value)


def test_limits_that_leave_no_size_are_said() -> None:
    one = Capabilities(limits=Limits(max_experts=6))
    with pytest.raises(NothingInCommon, match=r"Limits\(max_experts=6\) and .* leave no size"):
        common(one, Capabilities(limits=Limits(experts_multiple_of=8)))
    some = Capabilities(limits=Limits(experts=(8, 16)))
    with pytest.raises(NothingInCommon, match=r"Limits\(experts=\(8, 16\)\) and .* leave no size"):
        common(some, Capabilities(limits=Limits(experts=(12,))))


def test_the_narrower_of_two_limits_is_common_and_of_two_sets_what_is_in_both() -> None:
    one = Limits(max_groups=8, min_group_size=2, experts=(8, 16, 32), top_k=range(1, 9))
    other = Limits(
        max_groups=4, max_kept_groups=2, min_tokens=4, experts=(16, 32, 64), top_k=(6, 9)
    )
    both = common(Capabilities(limits=one), Capabilities(limits=other)).limits
    assert both == Limits(
        max_groups=4,
        max_kept_groups=2,
        min_group_size=2,
        min_tokens=4,
        experts=(16, 32),
        top_k=(6,),
    )
