"""A parade finds what is found for each router alone."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.cases.kinds import trial_of
from moe_routing.conformance.checking.outcome import Outcome, evaluate
from moe_routing.conformance.checking.scope import adapter_scope
from moe_routing.conformance.checking.search import draw_cases
from moe_routing.conformance.clauses import CLAUSES, Clause
from moe_routing.conformance.events import EVENTS
from moe_routing.conformance.generators.construct import take_tokens
from moe_routing.conformance.trial.memo import CaseMemo
from moe_routing.conformance.trial.trial import Trial
from moe_routing.conformance.zoo import HONEST, MUTANTS
from moe_routing.conformance.zoo.census import parade
from moe_routing.conformance.zoo.census.encounter import Encounter, Seen
from moe_routing.conformance.zoo.census.parade import Parade
from moe_routing.conformance.zoo.residents import WHOLE
from moe_routing.conformance.zoo.router.router import StagedRouter
from moe_routing.conformance.zoo.router.stages import Array, config, weights
from moe_routing.conformance.zoo.router.work import Stage, Work
from moe_routing.implementations import Capabilities, Claim, Unsupported
from moe_routing.reference import RouterConfig, RouterInputs

ROUTED_CLAUSES = [each for each in CLAUSES.values() if each.method in ("route", "dispatch")]
DRAWS = 1
EVERYTHING = Capabilities(claims=(Claim.whole(),))
"""All that is specified, also the axes that `Capabilities()` leaves out."""


@cache
def applies(clause_id: str) -> tuple[str, ...]:
    """Return the routers that a clause applies to, for which it may have to call them."""
    clause = CLAUSES[clause_id]
    mutants = {name: each for name, each in MUTANTS.items() if each.family in clause.bugs}
    some = {
        name: each
        for name, each in (mutants | HONEST).items()
        if clause.layout is None or "answer" in each.stages  # which alone makes another layout
    }
    made = {name: each.adapter() for name, each in some.items()}
    return tuple(
        name
        for name, router in made.items()
        if adapter_scope(router, clause, router.capabilities()) is None
    )


def routers(clause: Clause) -> dict[str, StagedRouter]:
    """Return the honest routers, and the mutants that the clause is there to catch."""
    return {name: (MUTANTS | HONEST)[name].adapter() for name in applies(clause.id)}


def drawn(clause: Clause) -> list[Case]:
    found: list[Case] = []
    plain = clause.narrowed(Capabilities())
    draw_cases(
        clause,
        plain if plain.claims else clause.narrowed(EVERYTHING),
        suite_seed=11,
        max_examples=DRAWS,
        enough=lambda case: found.append(case) or False,
    )
    return found


@pytest.mark.parametrize("clause", ROUTED_CLAUSES, ids=lambda clause: clause.id)
def test_each_in_a_parade_gets_the_outcome_that_it_gets_alone(clause: Clause):
    for case in drawn(clause):
        together, alone = routers(clause), routers(clause)
        about, memo = Parade(together, case, clause.method, CaseMemo()), CaseMemo()
        for name, found in {each: about.outcome(clause, each) for each in together}.items():
            if together[name].memory:
                continue  # its answers depend on the calls before
            expected = evaluate(clause, trial_of(alone[name], case, clause.method, memo=memo))
            assert (found.kind, found.words) == (expected.kind, expected.words), name


class Counting(StagedRouter):
    """Counts its calls, and can change its inputs."""

    def __init__(self, name: str, *, spoils: bool = False) -> None:
        super().__init__(name, {}, WHOLE)
        self.spoils, self.given = spoils, []

    def route(self, config: RouterConfig, inputs: RouterInputs) -> object:
        answer = super().route(config, inputs)
        self.given.append(inputs)
        if self.spoils:
            inputs.hidden.flags.writeable = True
            inputs.hidden[...] += 1.0
        return answer


def test_every_router_is_called_itself_and_none_gets_inputs_that_another_has_spoilt():
    names = ("first", "spoiler", "last")
    herd = {name: Counting(name, spoils=name == "spoiler") for name in names}
    case = EVENTS["clear-winners"].constructed(WHOLE)
    trials = Parade(herd, case, "route", CaseMemo()).trials
    assert trials["first"].verdict.right
    assert [len(each.given) for each in herd.values()] == [1, 1, 1]
    assert [trial.changed for trial in trials.values()] == [[], ["hidden"], []]
    assert herd["spoiler"].given[0] is not herd["last"].given[0]
    assert trials["last"].verdict.right


def test_a_case_made_once_is_run_once_and_again_where_it_is_wanted_twice():
    herd = {name: Counting(name) for name in ("first", "second")}
    case = next(c for c in drawn(CLAUSES["weights.scale"]) if c.inputs.num_tokens)
    trial = Parade(herd, case, "route", CaseMemo()).trials["first"]
    made = trial.once(lambda case: Case(config=case.config, inputs=case.inputs))
    once, twice = trial.of(made), trial.of(made)
    assert all(each.native for each in (once, twice, trial.of(case)))
    assert [len(each.given) for each in herd.values()] == [3, 0]


def outcomes(
    clause: str, herd: dict[str, StagedRouter], case: Case, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[bool], list[str]]:
    """Return which routers pass a clause, and which of them it was run on."""
    ran: list[str] = []

    def noted(clause: Clause, trial: Trial) -> Outcome:
        ran.append(trial.adapter.name)
        return evaluate(clause, trial)

    monkeypatch.setattr(parade, "evaluate", noted)
    about = Parade(herd, case, CLAUSES[clause].method, CaseMemo())
    return [not about.outcome(CLAUSES[clause], name).broken for name in herd], ran


def several_tokens(clause: str) -> Case:
    case = next(c for c in drawn(CLAUSES[clause]) if c.inputs.num_tokens)
    return take_tokens(case, (0,) * 3)


def test_a_clause_is_run_once_for_equal_answers(monkeypatch: pytest.MonkeyPatch):
    herd = {name: Counting(name) for name in ("first", "second", "third")}
    case = several_tokens("invariance.token-order")
    passed, ran = outcomes("invariance.token-order", herd, case, monkeypatch)
    assert (passed, ran) == ([True] * 3, ["first"])
    assert [len(each.given) for each in herd.values()] == [2, 2, 2], "each answers for itself"


def wrong_alone(w: Work) -> Array:
    """Double the weights of a token that is alone."""
    return weights(w) * np.float32(2 if w.num_tokens == 1 else 1)


def refused(w: Work) -> RouterConfig:
    """Refuse a token that is alone."""
    if w.num_tokens == 1:
        raise ValueError("one token")
    return config(w)


@pytest.mark.parametrize("stages", [{"weights": wrong_alone}, {"config": refused}])
def test_a_router_wrong_only_in_a_derived_case_is_run_itself(
    stages: dict[str, Stage], monkeypatch: pytest.MonkeyPatch
):
    stage_of = {"first": {}, "wrong": stages, "last": {}}
    herd = {name: StagedRouter(name, own, WHOLE) for name, own in stage_of.items()}
    case = several_tokens("invariance.batch-split")
    passed, ran = outcomes("invariance.batch-split", herd, case, monkeypatch)
    assert (passed, ran) == ([True, False, True], ["first", "wrong"])


def test_a_router_that_answers_where_another_rightly_raised_is_run_itself(
    monkeypatch: pytest.MonkeyPatch,
):
    def unclaimed(w: Work) -> RouterConfig:
        raise Unsupported("never claimed")

    claims = Capabilities(claims=(Claim(score=("identity",)),))
    answering = {"config": lambda w: w.valid}
    herd = {
        name: StagedRouter(name, stages, claims)
        for name, stages in (("refuses", {"config": unclaimed}), ("answers", answering))
    }
    case = next(c for c in drawn(CLAUSES["weights.scale"]) if c.config.score != "identity")
    passed, ran = outcomes("robustness.rejects-unclaimed", herd, case, monkeypatch)
    assert (passed, ran) == ([True, False], ["refuses", "answers"])


def seen_by(variants: dict[str, StagedRouter], clause: str) -> tuple[Encounter, list[Seen]]:
    seen: list[Seen] = []
    meeting = Encounter(
        CLAUSES[clause], 0, 30, lambda each: seen.append(each) or True, together=True
    )
    meeting.run(variants)
    return meeting, seen


@pytest.mark.parametrize("clause", ["weights.match", "selection.distinct"])
def test_a_router_that_claims_less_is_called_as_often_and_only_as_it_claims(clause: str):
    herd = {name: HONEST[name].adapter() for name in ("slots-by-id", "map-layout")}
    ran = {name: [] for name in herd}
    for name, router in herd.items():
        router.route = lambda config, inputs, name=name, route=router.route: (
            ran[name].append(inputs) or route(config, inputs)
        )
    meeting, seen = seen_by(herd, clause)
    assert not seen
    number = CLAUSES[clause].draws(30)
    built = meeting.answers - 2 * number
    assert built > 0
    assert all(inputs.expert_table is None for inputs in ran["map-layout"])
    tables = sum(inputs.expert_table is not None for inputs in ran["slots-by-id"])
    assert (tables > 0) == (clause == "weights.match")
    assert meeting._drawn == dict.fromkeys(herd, number)
