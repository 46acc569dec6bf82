"""Events of gradients through a norm: its order, eps and floor, and one expert alone."""

from __future__ import annotations

from moe_routing.conformance.events.gradients import differentiated, flows, rows_of, uneven
from moe_routing.conformance.judge.gradients import GradientFacts
from moe_routing.reference import Renormalize
from moe_routing.reference.weight_gradients import norm_of

differentiated(
    "normed",
    "a norm over several experts whose cotangents differ",
    lambda f: _has_norm(f) and bool(uneven(f).any()),
    rows_of(wants={"renormalize": lambda rule: rule is not None}),
)
differentiated(
    "not-normed",
    "weights without a norm, and a gradient that is not 0",
    lambda f: f.bounds.config.renormalize is None and flows(f, "logits"),
    rows_of(wants={"renormalize": None}),
)
differentiated(
    "normed-alone",
    "one expert a token, divided by its own score alone",
    lambda f: _alone(f),
    rows_of(
        top_ks=(1,),
        wants={"renormalize": lambda rule: rule is not None and rule.eps < 1e-9 > rule.floor},
    ),
)
differentiated(
    "norm-of-order",
    "a norm of another order than 1 over several experts",
    lambda f: _has_norm(f) and _rule(f).order != 1.0 and bool(uneven(f).any()),
    rows_of(wants={"renormalize": lambda rule: rule is not None and rule.order != 1.0}),
)
differentiated(
    "norm-with-eps",
    "a norm over several experts to which an eps is added that shows",
    lambda f: _has_norm(f) and _rule(f).eps > 1e-3 and bool(uneven(f).any()),
    rows_of(wants={"renormalize": lambda rule: rule is not None and rule.eps > 1e-3}),
)
differentiated(
    "floored",
    "a norm below the floor, which then is the divisor",
    lambda f: _floored(f),
    rows_of(
        rows=[[-30.0, -31.0, -30.5, -32.0], [-33.0, -30.0, -31.5, -31.0]],
        wants={
            "score and weights": lambda pair: pair[0] == "sigmoid" or "sigmoid" in pair[1],
            "renormalize": lambda rule: rule is not None and rule.floor > 0.0,
        },
    ),
)


def _has_norm(facts: GradientFacts) -> bool:
    return facts.bounds.config.renormalize is not None and facts.bounds.config.top_k > 1


def _rule(facts: GradientFacts) -> Renormalize:
    assert facts.bounds.config.renormalize is not None
    return facts.bounds.config.renormalize


def _floored(facts: GradientFacts) -> bool:
    rule, bounds = facts.bounds.config.renormalize, facts.bounds
    if rule is None or not rule.floor or not flows(facts, "logits"):
        return False
    norms = norm_of(rule, bounds.reference.gathered)[bounds.judged]
    return bool((norms + rule.eps < rule.floor).any())


def _alone(facts: GradientFacts) -> bool:
    config, rule = facts.bounds.config, facts.bounds.config.renormalize
    if rule is None or config.top_k > 1 or not facts.bounds.inputs.num_tokens:
        return False
    free = rule.eps < 1e-9 and rule.floor < 1e-9
    return free and bool((facts.chosen[facts.bounds.judged] != 0.0).any())
