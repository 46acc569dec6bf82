"""Two weights of one token that no common factor explains, in words."""

from __future__ import annotations

from moe_routing.conformance.explain.numbers import show, span
from moe_routing.conformance.judge import Verdict


def ratio_words(verdict: Verdict, token: int) -> str:
    """Say what the ratio of the two slots ``verdict.apart`` is, and what it should be."""
    one, other = verdict.apart[token].tolist()
    row, answer = verdict.weight_bounds.row, verdict.answer
    assert row is not None
    weights, experts = answer.weights[token], answer.expert_ids[token]
    ratio = float(weights[one] / weights[other]) if weights[other] else float("inf")
    return (
        f"weights[{token}, {one}] / weights[{token}, {other}]={show(ratio)}, but the ratio should "
        f"be in {span(row.ratio(token, one, other))} (experts {experts[one]} and {experts[other]})"
    )
