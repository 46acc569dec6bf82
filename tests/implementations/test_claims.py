"""Claims: the plain one, and what does not matter for logits that are inputs."""

from __future__ import annotations

import json
import math
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.cli import main
from moe_routing.conformance.generators.choices import choose_router, seeded
from moe_routing.implementations import (
    ANY,
    Capabilities,
    Claim,
    GroupRule,
    Limits,
    Numerics,
    Unsupported,
)
from moe_routing.implementations.claims import axes_of
from moe_routing.implementations.wire_claims import capabilities_from_json
from moe_routing.reference import (
    Groups,
    Renormalize,
    RouterConfig,
    RouterInputs,
    SharedSlots,
)

PLAIN = RouterConfig(num_experts=4, top_k=2)
INPUTS = RouterInputs(hidden=np.zeros((3, 2)), gate_weight=np.ones((4, 2)))


class TestPlain:
    def test_claims_the_default_configuration(self) -> None:
        assert Claim.plain().refusals(PLAIN, INPUTS) == []

    @pytest.mark.parametrize(
        ("changes", "refusal"),
        [
            ({"score": "sigmoid"}, "score='sigmoid'"),
            ({"weights_from": "softmax_of_selected"}, "weights_from='softmax_of_selected'"),
            ({"groups": Groups(count=2, kept=1)}, "groups=Groups(count=2, kept=1, top=2"),
            ({"renormalize": Renormalize()}, "renormalize=Renormalize(eps=0.0"),
            ({"scale": 2.5}, "scale=2.5"),
            ({"logit_softcap": 30.0}, "logit_softcap=True"),
            ({"logit_multiplier": 0.5}, "logit_multiplier=True"),
        ],
    )
    def test_claims_nothing_that_is_not_named(self, changes: dict, refusal: str) -> None:
        config = RouterConfig(**{**vars(PLAIN), **changes})
        (found,) = Claim.plain().refusals(config, INPUTS)
        assert found.startswith(refusal)

    @pytest.mark.parametrize("claim", [Claim.plain(), Claim(), Claim.plain(score=("sigmoid",))])
    def test_permits_what_it_refuses_nothing_of(self, claim: Claim) -> None:
        for score in ("softmax", "sigmoid"):
            config = RouterConfig(**{**vars(PLAIN), "score": score})
            permitted = claim.permits(axes_of(config, INPUTS, "hidden"))
            assert permitted == (not claim.refusals(config, INPUTS))

    def test_claims_no_part_of_the_inputs_that_is_not_named(self) -> None:
        parts = {
            "gate_bias": np.zeros(4),
            "selection_bias": np.zeros(4),
            "per_expert_scale": np.ones(4),
            "gate_delta": np.zeros((4, 2)),
        }
        full = RouterInputs(hidden=INPUTS.hidden, gate_weight=INPUTS.gate_weight, **parts)
        refusals = Claim.plain().refusals(PLAIN, full)
        assert {refusal.partition("=")[0] for refusal in refusals} == set(parts)

    def test_claims_what_is_named(self) -> None:
        claim = Claim.plain(name="mine", score=("sigmoid",), scale=ANY, gate_bias=(False, True))
        assert (claim.name, claim.score, claim.gate_bias) == ("mine", ("sigmoid",), (False, True))
        config = RouterConfig(num_experts=4, top_k=2, score="sigmoid", scale=7.0)
        assert claim.refusals(config, INPUTS) == []

    def test_leaves_no_axis_but_sizes_and_precision_open(self) -> None:
        plain, whole = Claim.plain(), Claim.whole()
        opened = {f.name for f in fields(Claim) if getattr(plain, f.name) == getattr(whole, f.name)}
        assert opened == {"name", "top_k", "logits_dtype", "scores_dtype", "weights_dtype"}

    def test_refuses_an_axis_that_is_not_there(self) -> None:
        with pytest.raises(TypeError, match=r"no axis 'softcap'; did you mean logit_softcap\?$"):
            Claim.plain(softcap=(True,))


# A value that is given alone: what is advised is what is then taken.
ALONE = [
    (Claim, "score", "softmax", "('softmax',)"),
    (Claim, "score", ["softmax"], "('softmax',)"),
    (Claim, "score", True, "some of ('softmax', 'sigmoid', 'sqrtsoftplus', 'identity')"),
    (Claim, "score", ANY, "some of ('softmax', 'sigmoid', 'sqrtsoftplus', 'identity')"),
    (Claim, "gate_bias", True, "(True,)"),
    (Claim, "gate_bias", "yes", "some of (False, True)"),
    (Claim, "top_k", 8, "(8,)"),
    (Claim, "top_k", "8", "(1, 2), for example"),
    (Claim, "scale", 2.5, "(2.5,)"),
    (Claim, "scale", None, "(2.5,), for example"),
    (Claim, "renormalize", True, "(Renormalize(),), for example"),
    (Claim, "renormalize", None, "(None,)"),
    (Claim, "groups", True, "(GroupRule(),), for example"),
    (Claim, "groups", Groups(count=2, kept=1), "(GroupRule(),), for example"),
    (GroupRule, "top", 2, "(2,)"),
    (GroupRule, "top", "max", "(2,), for example"),
    (GroupRule, "fill", 0.0, "(0.0,)"),
    (GroupRule, "fill", None, "(-math.inf,), for example"),
    (Capabilities, "dtypes", "float32", "('float32',)"),
    (Capabilities, "dtypes", "float8", "some of ('float32', 'bfloat16', 'float16')"),
    (Capabilities, "layouts", "contiguous", "('contiguous',)"),
]


@pytest.mark.parametrize(("kind", "axis", "value", "advice"), ALONE)
def test_a_value_alone_is_refused_with_what_is_then_taken(
    kind: type, axis: str, value: object, advice: str
) -> None:
    with pytest.raises(ValueError, match=r"a tuple of permitted values but got ") as refused:
        kind(**{axis: value})
    assert str(refused.value).endswith(f": write {advice}")
    written = advice.removesuffix(", for example").removeprefix("some of ")
    names = {"Renormalize": Renormalize, "GroupRule": GroupRule, "math": math}
    kind(**{axis: eval(written, names)})


NONSENSE = [
    (Claim, {"score": ()}, "Expected Claim.score to permit something but got ()"),
    (Claim, {"top_k": ()}, "Expected Claim.top_k to permit something but got ()"),
    (Claim, {"top_k": ("2",)}, "Expected each value of Claim.top_k to be an int but got '2'"),
    (Claim, {"top_k": (2, 0)}, "Expected each value of Claim.top_k >= 1 but got 0"),
    (Claim, {"top_k": range(4)}, "Expected each value of Claim.top_k >= 1 but got 0"),
    (Claim, {"top_k": range(9, 1, -1)}, "Expected each value of Claim.top_k >= 1 but got -1"),
    (Claim, {"scale": (math.nan,)}, "Expected each value of Claim.scale to be finite"),
    (Claim, {"renormalize": (True,)}, "each value of Claim.renormalize to be None or a Renorm"),
    (Claim, {"groups": (Groups(count=2, kept=1),)}, "to be None or a GroupRule but got Groups("),
    (GroupRule, {"top": 2}, "Expected GroupRule.top to be a tuple of permitted values but got 2"),
    (GroupRule, {"top": (0,)}, "Expected each value of GroupRule.top >= 1 but got 0"),
    (GroupRule, {"fill": (1.0,)}, "Expected Groups.fill to be -inf or 0.0 but got fill=1.0"),
    (Limits, {"max_experts": "8"}, "Expected Limits.max_experts to be an int but got '8'"),
    (Limits, {"max_tokens": 0}, "Expected Limits.max_tokens >= 1 but got 0"),
    (Limits, {"experts_multiple_of": 0}, "Expected Limits.experts_multiple_of >= 1 but got 0"),
    (Limits, {"min_tokens": -1}, "Expected Limits.min_tokens >= 0 but got -1"),
    (Limits, {"max_groups": 0}, "Expected Limits.max_groups >= 1 but got 0"),
    (Limits, {"experts": [8]}, "tuple of permitted values but got [8]: write (8,)"),
    (Limits, {"experts": ()}, "Expected Limits.experts to permit something but got ()"),
    (Limits, {"top_k": (0,)}, "Expected each value of Limits.top_k >= 1 but got 0"),
    (
        Limits,
        {"min_tokens": 8, "max_tokens": 4},
        "Cannot have Limits.min_tokens=8 > Limits.max_tokens=4",
    ),
    (
        Limits,
        {"min_group_size": 8, "max_group_size": 4},
        "Cannot have Limits.min_group_size=8 > Limits.max_group_size=4",
    ),
    (Numerics, {"multiply": "tf33"}, "Expected Numerics.multiply to be one of exact, tf32"),
    (Numerics, {"sigmoid": "tanh"}, "Expected Numerics.sigmoid to be one of relative, absolute"),
    (Numerics, {"select_bits": "13"}, "Expected Numerics.select_bits to be an int but got '13'"),
    (
        Claim,
        {"score": ("identity",), "weights_from": ("scores",)},
        "Cannot have score=('identity',) with weights_from=('scores',): logits are not weights; "
        "use softmax_of_selected or sigmoid_of_selected",
    ),
    (
        Claim,
        {"expert_table": (True,), "selection_bias": ("gate",)},
        "Cannot have expert_table=(True,) with selection_bias=('gate',): hash routing selects "
        "nothing; use selection_bias=('none',)",
    ),
    (Claim, {"expert_table": (True,), "groups": (GroupRule(),)}, "use groups=(None,)"),
    (
        Claim,
        {"expert_table": (True,), "weights_from": ("masked_scores",)},
        "groups make the mask, and a table excludes groups; use weights_from=('scores',)",
    ),
    (
        Capabilities,
        {"takes": "logits", "claims": (Claim(), Claim(input_norm=(True,)))},
        "Cannot have takes='logits' with claim 2, which has input_norm=(True,)",
    ),
    (Capabilities, {"takes": "hiddn"}, "Expected takes to be one of hidden, logits"),
    (Capabilities, {"logits": "Routed"}, "Expected logits to be one of routed, copy, none"),
    (Capabilities, {"claims": ("all",)}, "Expected claims to be a tuple of Claim but got ('all',)"),
    (Capabilities, {"claims": Claim()}, "to be a tuple of Claim but got a Claim: write (claim,)"),
    (Capabilities, {"claims": [Claim()]}, "to be a tuple of Claim but got a list"),
    (Capabilities, {"limits": 8}, "Expected limits to be a Limits but got 8 (type=int)"),
    (Capabilities, {"numerics": "tf32"}, "Expected numerics to be a Numerics but got 'tf32'"),
    (Capabilities, {"dtypes": ("float8",)}, "Expected dtypes to list only 'float32', "),
]


@pytest.mark.parametrize(("kind", "given", "words"), NONSENSE)
def test_what_no_backend_can_do_is_no_claim(kind: type, given: dict, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        kind(**given)


MASKED = RouterInputs.from_logits([[0.0, -np.inf, 1.0, 2.0]])
TAKES_LOGITS = """
from moe_routing.implementations import Capabilities, Claim, torch_inputs
from moe_routing.implementations.wire_claims import capabilities_from_json
from moe_routing.reference import Routing

class Softmax:
    name = "softmax"
    def capabilities(self):
        return Capabilities(claims=(Claim.plain(),), takes="logits")
    def route(self, config, inputs):
        self.capabilities().require(config, inputs)
        scores = torch_inputs(inputs).logits.float().softmax(-1)
        weights, expert_ids = scores.topk(config.top_k)
        return Routing(weights=weights, expert_ids=expert_ids)
"""


ROWS_ONLY = Capabilities(layouts=("contiguous",))


class TestOfLayouts:
    """Which calls are claimed, by how their arrays lie in memory."""

    @pytest.mark.parametrize("name", ["hidden", "gate_weight", "selection_bias", "gate_delta"])
    def test_every_array_of_a_call_has_to_lie_as_is_claimed(self, name: str) -> None:
        parts = {"selection_bias": np.zeros(4), "gate_delta": np.zeros((4, 2))}
        arrays = {"hidden": INPUTS.hidden, "gate_weight": INPUTS.gate_weight, **parts}
        assert ROWS_ONLY.admits(PLAIN, RouterInputs(**arrays))
        wide = np.repeat(np.asarray(arrays[name], np.float32), 2, axis=-1)
        strided = RouterInputs(**{**arrays, name: wide[..., ::2]})
        assert not ROWS_ONLY.admits(PLAIN, strided)
        steps = (2,) if wide.ndim == 1 else (4, 2)
        words = f"not claimed: {name} strided by {steps} (layouts=('contiguous',))"
        with pytest.raises(Unsupported, match=f"^{re.escape(words)}$"):
            ROWS_ONLY.require(PLAIN, strided)
        for layouts in (("contiguous", "strided"), ("strided",)):
            assert Capabilities(layouts=layouts).admits(PLAIN, strided)
            assert Capabilities(layouts=layouts).admits(PLAIN, RouterInputs(**arrays))

    @pytest.mark.parametrize("hidden", [np.ones((4, 3))[:, ::3], np.ones((2, 8)).T[:, :1]])
    def test_one_column_alone_is_strided(self, hidden: np.ndarray) -> None:
        inputs = RouterInputs(hidden=np.float32(hidden), gate_weight=np.ones((4, 1)))
        assert ROWS_ONLY.admits(PLAIN, inputs) == inputs.hidden.flags.c_contiguous

    @pytest.mark.parametrize("tokens", [0, 1])
    def test_an_array_whose_strides_show_nothing_lies_in_rows(self, tokens: int) -> None:
        wide = np.ones((5, 2), np.float32, order="F")[:tokens]
        memory = np.ones((3, 2), np.float32)[::3]
        for hidden in (wide[:, :1], memory[:tokens]):
            inputs = RouterInputs(hidden=hidden, gate_weight=np.ones((4, hidden.shape[1])))
            assert ROWS_ONLY.admits(PLAIN, inputs), hidden.strides

    def test_logits_that_are_given_count_like_the_hidden_states_that_carry_them(self) -> None:
        logits = np.zeros((4, 3), np.float32).T
        given = RouterInputs.from_logits(logits)
        claims = replace(ROWS_ONLY, takes="logits")
        assert not claims.admits(PLAIN, given)
        with pytest.raises(Unsupported, match=r"strided by \(1, 3\)"):
            claims.require(PLAIN, given)
        assert claims.admits(PLAIN, RouterInputs.from_logits(np.ascontiguousarray(logits)))

    def test_what_else_is_not_claimed_is_named_as_well(self) -> None:
        claims = replace(ROWS_ONLY, dtypes=("float32",), limits=Limits(max_experts=3))
        inputs = replace(INPUTS, hidden=np.zeros((2, 3), np.float32).T, dtype="bfloat16")
        words = "not claimed: num_experts=4 > 3, dtype='bfloat16', hidden strided by (1, 3)"
        with pytest.raises(Unsupported, match=re.escape(words)):
            claims.require(PLAIN, inputs)


class TestOfLogits:
    def test_a_bias_that_only_carries_an_infinity_is_no_part_of_given_logits(self) -> None:
        assert MASKED.gate_bias is not None, "that is how hidden states carry it"
        claims = (Claim.plain(),)
        assert Capabilities(claims=claims, takes="logits").admits(PLAIN, MASKED)
        assert not Capabilities(claims=claims).admits(PLAIN, MASKED)

    def test_hidden_states_are_refused(self) -> None:
        with pytest.raises(Unsupported, match=r"not claimed: hidden states \(takes logits\)"):
            Capabilities(takes="logits").require(PLAIN, INPUTS)

    def test_an_adapter_of_twelve_lines_passes_and_is_checked_on_masked_experts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("torch")
        monkeypatch.chdir(tmp_path)
        assert len([line for line in TAKES_LOGITS.splitlines() if line]) <= 12
        Path("gate.py").write_text(TAKES_LOGITS)
        check = ["check", "gate.py:Softmax", "--profile=smoke"]
        assert main([*check, "--json=report.json"]) == 0
        (adapter,) = json.loads(Path("report.json").read_text())["adapters"]
        found = {each["id"]: each for each in adapter["clauses"]}
        masked = found["robustness.infinite-logit"]
        assert masked["status"] == "pass"
        assert masked["events"]["lost-expert"] == "witnessed", masked["events"]
        assert sum(each["status"] == "pass" for each in found.values()) >= 25

    def test_one_broken_character_fails_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("torch")
        monkeypatch.chdir(tmp_path)
        Path("gate.py").write_text(TAKES_LOGITS.replace("softmax(-1)", "softmax(-2)"))
        check = ["check", "gate.py:Softmax", "--profile=smoke", "--clause=weights.match"]
        assert main(check) == 1


def test_narrowing_to_what_contradicts_the_rest_leaves_nothing() -> None:
    claim = Claim(expert_table=(True,))
    assert claim.narrowed({"selection_bias": ("gate",)}) is None
    assert claim.narrowed({"selection_bias": ("none",)}) is not None


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(max_top_k=4), "max_top_k=4 with claim 2, which starts at K=8 of a multiple of 1"),
        (Limits(max_experts=4), "max_experts=4 with claim 2, which starts at K=8"),
        (
            Limits(max_experts=12, experts_multiple_of=16),
            "max_experts=12 with claim 1, which starts at K=1 of a multiple of 16 experts",
        ),
        (Limits(top_k=(1, 2, 4)), r"top_k=\(1, 2, 4\) with claim 2, which starts at K=8"),
        (Limits(experts=(4,)), r"experts=\(4,\) with claim 2, which starts at K=8"),
    ],
    ids=str,
)
def test_limits_that_leave_nothing_of_a_claim_are_refused(limits: Limits, words: str) -> None:
    claims = (Claim.plain(), Claim.plain(top_k=range(8, 17)))
    with pytest.raises(ValueError, match=f"Cannot have {words}.*: no call is within both"):
        Capabilities(claims=claims, limits=limits)
    whole = Limits(max_experts=16, max_top_k=8, experts_multiple_of=16)
    assert Capabilities(claims=claims, limits=whole).limits == whole


GROUPED = Claim(groups=(GroupRule(),), expert_table=(False,))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_kept_groups": 1, "max_group_size": 4}, "max_kept_groups=1, max_group_size=4"),
        ({"max_kept_experts": 7}, "max_kept_experts=7"),
        ({"max_experts": 12, "min_group_size": 16}, "max_experts=12, min_group_size=16"),
    ],
    ids=str,
)
def test_limits_of_groups_count_where_a_claim_has_nothing_else(limits: dict, words: str) -> None:
    grouped = replace(GROUPED, top_k=(8,))
    said = f"Cannot have {words} with claim 1, which starts at K=8 .* in groups: no call"
    with pytest.raises(ValueError, match=said):
        Capabilities(claims=(grouped,), limits=Limits(**limits))
    either = replace(grouped, groups=(None, GroupRule()))
    assert Capabilities(claims=(either,), limits=Limits(**limits))
    assert Capabilities(claims=(either,), limits=Limits(**limits)).narrowed(groups=(True,)) == (
        replace(Capabilities(limits=Limits(**limits)), claims=())
    )


@pytest.mark.parametrize(
    ("limits", "refused"),
    [
        ({"experts": (8, 32)}, "num_experts=16 is none of (8, 32)"),
        ({"top_k": range(2, 10, 3)}, "top_k=4 is none of range(2, 10, 3)"),
        ({"min_tokens": 2}, "num_tokens=1 < 2"),
        ({"max_groups": 3}, "groups.count=4 > 3"),
        ({"max_kept_groups": 1}, "groups.kept=2 > 1"),
        ({"min_group_size": 5}, "experts_per_group=4 < 5"),
        ({"max_group_size": 3}, "experts_per_group=4 > 3"),
        ({"max_kept_experts": 7}, "experts of the kept groups=8 > 7"),
    ],
    ids=str,
)
def test_what_is_beyond_a_limit_is_refused_with_both_numbers(limits: dict, refused: str) -> None:
    config = RouterConfig(num_experts=16, top_k=4, groups=Groups(count=4, kept=2))
    inputs = RouterInputs.from_logits(np.zeros((1, 16), np.float32))
    assert Limits(**limits).refusals(config, inputs) == [refused]
    assert Limits().refusals(config, inputs) == []


@pytest.mark.parametrize(
    ("top", "covered"),
    [
        ("K // kept", {(8, 4): 2, (9, 4): 2, (4, 4): 1, (3, 4): None}),
        ("K / kept", {(8, 4): 2, (9, 4): None, (6, 2): 3, (1, 1): 1}),
    ],
)
def test_a_group_score_may_follow_from_k(top: str, covered: dict) -> None:
    rule = GroupRule(top=(top,))
    assert rule.follows_top_k
    assert GroupRule(top=(2, top)).tops(12, 4) == (2, 3)
    for (top_k, kept), number in covered.items():
        for summed in (1, 2, 3):
            groups = Groups(count=8, kept=kept, top=summed)
            assert rule.covers(groups, top_k) == (summed == number)
    for kept in range(1, 9):
        room = [k for k in range(1, 20) if rule.tops(k, kept)]
        assert [*rule.with_room(range(1, 20), kept)] == room
    said = {"score": ["softmax"], "groups": [{"top": [top], "fill": ["-inf"]}]}
    assert capabilities_from_json({"claims": [said]}).claims[0].groups[0].top == (top,)


def test_a_top_that_is_no_rule_is_refused_with_those_that_are() -> None:
    words = "Expected each value of GroupRule.top, or one of K // kept, K / kept, to be an int"
    with pytest.raises(ValueError, match=re.escape(words)):
        GroupRule(top=("K//kept",))


@pytest.mark.parametrize("top", ["K // kept", "K / kept"])
def test_calls_of_such_a_claim_are_drawn_as_it_has_them(top: str) -> None:
    claim = Claim(groups=(GroupRule(top=(top,)),), expert_table=(False,))
    limits = Limits() if top == "K / kept" else Limits(max_groups=8, max_group_size=4)
    claimed = Capabilities(claims=(claim,), limits=limits)
    tops = set()
    for seed in range(200):
        config = choose_router(seeded(seed), claimed)
        assert claim.covers(config)
        tops.add(config.groups.top)
    assert len(tops) > 3


def test_where_groups_are_bounded_a_share_is_not_exact() -> None:
    claim = Claim.plain(groups=(GroupRule(top=("K / kept",)),))
    words = "Cannot have max_groups=8 with claim 1, which has groups of top='K / kept': use"
    with pytest.raises(ValueError, match=words):
        Capabilities(claims=(claim,), limits=Limits(max_groups=8))


def test_groups_that_are_all_kept_follow_a_top_of_k_over_kept_whatever_their_top() -> None:
    rule = GroupRule(top=("K // kept",))
    assert rule.covers(Groups(count=1, kept=1, top=2), 8)
    assert not rule.covers(Groups(count=2, kept=1, top=2), 8)
    assert not GroupRule(top=("K / kept",)).covers(Groups(count=2, kept=2, top=2), 3)


def test_a_share_of_every_group_is_claimed_by_a_rule_of_its_own() -> None:
    each = Groups(count=2, kept=2, from_each=True)
    assert GroupRule(from_each=(True,)).covers(each, 4)
    assert not GroupRule(from_each=(True,)).covers(Groups(count=2, kept=2), 4)
    assert not GroupRule().covers(each, 4)
    config = RouterConfig(num_experts=8, top_k=4, groups=each)
    assert Claim.whole().covers(config), "the whole specification has it"
    assert not Claim().covers(config), "nobody is held to it who does not say so"
    assert not Claim.of_preset("deepseek_v3").covers(config)
    said = {"groups": [{"from_each": [True]}]}
    assert capabilities_from_json({"claims": [said]}).claims[0].groups[0].from_each == (True,)
    with pytest.raises(ValueError, match=r"GroupRule\.from_each to be"):
        GroupRule(from_each=True)


def test_what_is_drawn_of_a_claim_gives_every_group_its_share() -> None:
    claim = Claim.plain(groups=(GroupRule(from_each=(True,)),))
    drawn = [choose_router(seeded(i), Capabilities(claims=(claim,))) for i in range(60)]
    groups = [(each, each.groups) for each in drawn]
    assert all(rule.from_each and config.top_k % rule.count == 0 for config, rule in groups)
    assert any(1 < rule.count < config.top_k < config.num_experts for config, rule in groups)


def test_shared_slots_are_claimed_by_who_says_so() -> None:
    shared = SharedSlots(weight=0.4)
    config = RouterConfig(num_experts=8, top_k=4, shared_slots=shared)
    assert Claim.whole().covers(config), "the whole specification has them"
    assert not Claim().covers(config), "nobody is held to them who does not say so"
    assert Claim.plain(shared_slots=(None, shared)).covers(config)
    assert not Claim.plain(shared_slots=(SharedSlots(),)).covers(config)
    said = {"shared_slots": [None, {"count": 1, "weight": 0.4}]}
    assert capabilities_from_json({"claims": [said]}).claims[0].shared_slots == (None, shared)
    with pytest.raises(ValueError, match=r"Claim\.shared_slots to be a tuple .* but got True"):
        Claim(shared_slots=True)
    with pytest.raises(ValueError, match="shared_slots has the unknown key"):
        capabilities_from_json({"claims": [{"shared_slots": [{"wieght": 1}]}]})


def test_only_route_is_given_shared_slots() -> None:
    claimed = Capabilities(claims=(Claim.whole(),))
    for id_ in ("gradients.logits", "replay.forced", "dispatch.softmax-without-bias"):
        narrowed = CLAUSES[id_].narrowed(claimed)
        assert {each.shared_slots for each in narrowed.claims} == {(None,)}
