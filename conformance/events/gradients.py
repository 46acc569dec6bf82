"""Events of gradients: which parts a gradient runs through, and where it is hard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from moe_routing.conformance.calls.gradients import GradientCase
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.registry import FAMILIES, ROWS, event
from moe_routing.conformance.generators.construct import table_cases
from moe_routing.conformance.generators.gradients import with_cotangent
from moe_routing.conformance.judge.gradients import GradientFacts
from moe_routing.implementations import Capabilities
from moe_routing.reference.formats import Bools, Ids

Occurs = Callable[[GradientFacts], bool]
Makes = Callable[[Capabilities], Iterator[Case]]


def differentiated(slug: str, statement: str, occurs: Occurs, makes: Makes) -> None:
    """Register an event that the routing cases of ``makes`` show, with a plain cotangent."""

    @event(
        f"gradient-{slug}",
        statement,
        lambda facts: isinstance(facts, GradientFacts) and bool(occurs(facts)),
    )
    def _(capabilities: Capabilities) -> Iterator[GradientCase]:
        yield from map(with_cotangent, makes(capabilities))


def rows_of(*, top_ks: tuple[int, ...] = (2, 1), rows: Any = ROWS, **parts: Any) -> Makes:
    """Return what makes cases of these logits, that choose so many experts."""

    def make(capabilities: Capabilities) -> Iterator[Case]:
        for top_k in top_ks:
            yield from table_cases(capabilities, rows, top_k=top_k, **parts)

    return make


def uneven(facts: GradientFacts) -> Bools:
    """Return the judged tokens whose experts have cotangents that differ."""
    chosen = facts.chosen
    apart = chosen.max(axis=1, initial=-np.inf) > chosen.min(axis=1, initial=np.inf)
    return np.asarray(apart & facts.bounds.judged)


def flows(facts: GradientFacts, name: str) -> bool:
    """Return whether some gradient of an input is finite and not 0."""
    found = getattr(facts.reference, name)
    return found is not None and bool((np.isfinite(found) & (found != 0.0)).any())


differentiated(
    "any",
    "a gradient that is not 0",
    lambda f: flows(f, "logits"),
    rows_of(),
)
differentiated(
    "scaled",
    "a routed scaling factor that is not 1 or 0",
    lambda f: f.bounds.config.scale not in (0.0, 1.0) and flows(f, "logits"),
    rows_of(wants={"scale": lambda scale: scale not in (0.0, 1.0)}),
)
differentiated(
    "capped",
    "a softcap that takes a quarter off the slope of a logit",
    lambda f: _caps(f),
    rows_of(
        rows=4.0 * np.array(ROWS),
        wants={"softcap": lambda cap: cap <= 5.0, "logit ops": lambda o: "logit_softcap" in o},
    ),
)
differentiated(
    "multiplied",
    "a logit multiplier",
    lambda f: f.bounds.config.logit_multiplier != 1.0 and flows(f, "logits"),
    rows_of(wants={"logit ops": lambda ops: "logit_multiplier" in ops}),
)
differentiated(
    "masked",
    "weights from masked scores, and a gradient at an expert that is not kept",
    lambda f: _masked(f),
    rows_of(
        groups=(2, 1),
        wants={
            "score and weights": lambda pair: pair == ("softmax", "masked_scores"),
            "renormalize": lambda rule: rule is None or rule.eps > 1e-3,
        },
    ),
)
differentiated(
    "selection-bias",
    "a selection bias that is not 0 throughout",
    lambda f: (
        f.bounds.inputs.selection_bias is not None
        and bool(f.bounds.inputs.selection_bias.any())
        and flows(f, "logits")
    ),
    rows_of(selection_bias=[0.25, -0.5, 1.0, 0.0]),
)
differentiated(
    "repeated",
    "an expert in two slots of a token",
    lambda f: _repeats(f.bounds.reference.expert_ids) and flows(f, "logits"),
    rows_of(
        top_ks=(2,),
        expert_table=[[1, 1], [0, 2], [3, 3]],
        token_ids=[0, 1, 2],
    ),
)
differentiated(
    "elsewhere",
    "experts that are given, and are not the best ones",
    lambda f: _elsewhere(f),
    rows_of(top_ks=(2, 1), rows=ROWS, wants={"optional arrays": lambda p: "expert_table" in p}),
)
differentiated(
    "nan-row",
    "a token of NaN among others",
    lambda f: bool(np.isnan(f.bounds.inputs.hidden).all(axis=1).any()) and bool(uneven(f).any()),
    rows_of(rows=[[np.nan] * 4, *ROWS], top_ks=(2,)),
)
differentiated(
    "no-tokens",
    "no tokens",
    lambda f: f.bounds.inputs.num_tokens == 0,
    rows_of(rows=np.zeros((0, 4))),
)
differentiated(
    "tokens-above-256",
    "a gate gradient in which a token after the 256th counts",
    lambda f: (
        f.bounds.inputs.num_tokens > 256
        and bool((np.abs(f.reference.logits[256:]) > 0.0).any())
        and bool(f.bounds.judged.all())
    ),
    rows_of(rows=np.resize(np.array(ROWS), (257, 4))),
)


def _repeats(ids: Ids) -> bool:
    ordered = np.sort(ids, axis=1)
    return bool((ordered[:, 1:] == ordered[:, :-1]).any())


def _caps(facts: GradientFacts) -> bool:
    cap, bounds = facts.bounds.config.logit_softcap, facts.bounds
    if cap is None or not flows(facts, "logits"):
        return False
    share = bounds.reference.operated[bounds.judged] / cap
    return bool((share**2 > 0.25).any())


def _masked(facts: GradientFacts) -> bool:
    config, done = facts.bounds.config, facts.bounds.reference
    if config.groups is None or config.weights_from != "masked_scores":
        return False
    return bool((facts.reference.logits[~done.kept & facts.bounds.judged[:, None]] != 0.0).any())


def _elsewhere(facts: GradientFacts) -> bool:
    done = facts.bounds.reference
    if facts.bounds.inputs.expert_table is None or not len(done.expert_ids):
        return False
    chosen = np.take_along_axis(done.scores, done.expert_ids, axis=1)
    best = np.sort(done.scores, axis=1)[:, -facts.bounds.config.top_k :]
    return bool((np.sort(chosen, axis=1) < best).any())


FAMILIES["gradient-score"] = "a gradient that is not 0 through one score function, at some weights"


def _of_score(score: str, weights_from: str) -> None:
    name = score if weights_from == "scores" else weights_from.replace("_", "-")

    def occurs(facts: GradientFacts) -> bool:
        config = facts.bounds.config
        used = weights_from.endswith("selected") or config.score == score
        return used and config.weights_from == weights_from and flows(facts, "logits")

    def chosen(pair: tuple[str, str]) -> bool:
        return pair[1] == weights_from and (pair[0] == score or weights_from != "scores")

    differentiated(
        f"score:{name}",
        f"a gradient through {name.replace('-', ' ')}",
        occurs,
        rows_of(wants={"score and weights": chosen}),
    )


for _pair in (
    ("softmax", "scores"),
    ("sigmoid", "scores"),
    ("sqrtsoftplus", "scores"),
    ("identity", "softmax_of_selected"),
    ("identity", "sigmoid_of_selected"),
):
    _of_score(*_pair)
