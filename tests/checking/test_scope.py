"""Why a clause or a case does not apply to an adapter: the field or the axis is named."""

from __future__ import annotations

from typing import Any

import pytest
from narrow_adapter import Narrow

from moe_routing.conformance import Case
from moe_routing.conformance.checking.scope import adapter_scope, case_scope
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.implementations import Capabilities, Claim, Limits, load_adapter
from moe_routing.reference import Renormalize, RouterConfig, RouterInputs

PLAIN = {"claims": (Claim.plain(), Claim.plain(score=("sigmoid",)))}
EXCLUDED = [
    ("weights.sum", PLAIN, "nothing claimed has renormalize other than None"),
    ("weights.tiny-norm", PLAIN, "nothing claimed has renormalize other than None"),
    ("logits.match", PLAIN, "the capabilities have logits='none'"),
    (
        "invariance.strided-input",
        {"layouts": ("contiguous",)},
        "the capabilities have layouts=('contiguous',)",
    ),
    ("groups.kept-only", PLAIN, "nothing claimed has groups=True, expert_table=False"),
]


@pytest.mark.parametrize(("clause", "claims", "words"), EXCLUDED)
def test_a_clause_that_does_not_apply_names_what_excludes_it(
    clause: str, claims: dict[str, Any], words: str
) -> None:
    adapter = Narrow(**claims)
    assert adapter_scope(adapter, CLAUSES[clause], adapter.capabilities()) == words


OF_LOGITS = "gradients.of=('logits', 'per_expert_scale')"


@pytest.mark.parametrize(
    ("clause", "words"),
    [
        ("gate-bias", f"{OF_LOGITS} has no gate_bias"),
        ("delta", f"{OF_LOGITS} has no gate_delta or hidden"),
        ("hidden-scale", "nothing claimed has input_norm=True with takes='logits'"),
        ("expert-scale", None),
    ],
)
def test_gradients_before_the_logits_do_not_apply_to_a_backend_that_takes_those(
    clause: str, words: str | None
) -> None:
    adapter, claimed = load_adapter("reference"), Capabilities(takes="logits")
    assert adapter_scope(adapter, CLAUSES[f"gradients.{clause}"], claimed) == words


@pytest.mark.parametrize("axes", [{"top_k": (8,)}, {"top_k": (1, 8), "renormalize": (None,)}])
def test_the_clause_of_one_renormalised_expert_says_what_is_not_claimed(
    axes: dict[str, Any],
) -> None:
    adapter, clause = load_adapter("reference"), CLAUSES["gradients.norm-is-differentiated"]
    words = "nothing claimed has top_k=1 with renormalize other than None"
    assert adapter_scope(adapter, clause, Capabilities(claims=(Claim(**axes),))) == words


RENORMALIZED = {"claims": (Claim.plain(renormalize=(Renormalize(),)),)}


@pytest.mark.parametrize("clause", ["weights.sum", "weights.tiny-norm"])
@pytest.mark.parametrize("claims", [RENORMALIZED, {}])
def test_a_clause_that_applies_says_nothing(clause: str, claims: dict[str, Any]) -> None:
    adapter = Narrow(**claims)
    assert adapter_scope(adapter, CLAUSES[clause], adapter.capabilities()) is None


@pytest.mark.parametrize(
    ("claims", "config", "words"),
    [
        (PLAIN, {"scale": 2.5}, ": scale=2.5"),
        ({"limits": Limits(max_experts=2)}, {}, ": num_experts=3 > 2"),
        ({"dtypes": ("float16",)}, {}, ": dtype='float32'"),
        ({"takes": "logits"}, {}, ": hidden states (takes logits)"),
    ],
)
def test_a_case_that_is_not_claimed_names_what_is_not(
    claims: dict[str, Any], config: dict[str, Any], words: str
) -> None:
    inputs = RouterInputs(hidden=[[1.0]], gate_weight=[[1.0], [2.0], [3.0]])
    case = Case(config=RouterConfig(num_experts=3, top_k=1, **config), inputs=inputs)
    reason = case_scope(Narrow(**claims), CLAUSES["weights.match"], case)
    assert reason == f"the case is outside the adapter's claims{words}"
