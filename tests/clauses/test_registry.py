"""The clause registry: what every clause must have, and that right routers pass them all."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import pytest
from for_each import for_each

from moe_routing.conformance import Plan, select_clauses
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.clauses import CHAPTERS, CLAUSES, NoSuchClause
from moe_routing.conformance.clauses.registry import Clause, clause
from moe_routing.conformance.cli import main
from moe_routing.conformance.events import EVENTS
from moe_routing.conformance.generators.recipes import BIASES, RECIPES
from moe_routing.conformance.zoo import HONEST
from moe_routing.implementations import Capabilities, load_adapter
from moe_routing.implementations.claims import Claim
from moe_routing.implementations.protocol import offered

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "docs" / "spec"

# Ids never change meaning, and never go: reports and lists of known divergences name them.
STARTING = {
    "logits": "match lora-delta gate-bias",
    "scores": "match",
    "groups": "kept-only one-group all-kept negative-scores ragged-rejected",
    "selection": "valid-top-k distinct in-range bias-steers zero-bias-is-no-bias bias-placement "
    "every-expert-can-win k-equals-e",
    "weights": "match unbiased sum scale dtype",
    "layout": "flat-token-order flat-pairing dtypes contiguous",
    "invariance": "repeatable token-order expert-relabel batch-split logit-shift strided-input "
    "inputs-unchanged",
    "robustness": "empty-batch one-token large-logits underflow nan-row infinite-logit "
    "rejects-bad-config",
    "dispatch": "softmax-without-bias sigmoid-with-bias",
    "shared-experts": "singular plural mlp absent gate-applied-once",
    "permutation": "conserved grouped counts offsets aligned no-waste padding-marked "
    "capacity-of-buffer inverse gather tiles stable weights-follow repeatable no-tokens "
    "round-trip ids-untouched",
    "gradients": "logits hidden gate-weight gate-bias delta expert-scale hidden-scale "
    "norm-is-differentiated bias-has-none masked-groups saturated duplicates at-replayed-ids "
    "rows-apart linear no-tokens inputs-untouched",
    "experts": "match exact one-hot weight-on-output weight-on-input bias-weighted zero-weight "
    "zero-weight-overflow absent all-absent unchosen empty-expert no-token slot-order repeated "
    "batch-split untouched repeatable gradients gradients-exact gradients-absent gradients-empty "
    "gradients-untouched",
    "replay": "forced masked-scores repeated absent-rows recorded-weights own-record rows padding "
    "layers unrecorded wide-ids written strided untouched no-tokens",
    "shards": "union sum elsewhere-is-zero maps replicas one-rank skewed idle-rank absent "
    "biases-once no-token on-ranks uneven-batches idle-batch skewed-batches maps-on-ranks "
    "replicas-on-ranks absent-on-ranks no-batch gradients",
    "balance": "counts aux-loss aux-gradient z-loss permutation-of-tokens doubling bias-update "
    "not-in-evaluation once-when-recomputed inputs-untouched",
    "capacity": "no-others respected none-needlessly order survivors dropped-weigh-nothing "
    "larger-than-batch zero no-tokens inputs-untouched",
    "padding": "inert tokens told not-finite all-or-none written experts",
    "layer": "composes shared-once routing untouched no-token",
}

WHOLE_CLAIMS = (None, "gate_dtype", "from_each", "shared_slots")
"""What the clauses are on that routers are held to who claim the whole specification."""

APPLIES_TO_OTHER_LAYOUTS = {
    "layout.flat-token-order",
    "layout.flat-pairing",
    "layout.map-zero-off-route",
    "robustness.rejects-unclaimed",  # nothing lies outside the claims of a whole router
    "permutation.tiles",  # only some layouts have any
}


WITNESSED = [
    each.id
    for each in CLAUSES.values()
    if each.method == "route" and each.id not in APPLIES_TO_OTHER_LAYOUTS
]
"""Clauses that see all of their events on a whole router."""

OF_PROMISES = [id_ for id_ in WITNESSED if CLAUSES[id_].promise not in WHOLE_CLAIMS]
"""Those of them that only some routers are held to."""


@pytest.mark.parametrize("chapter", STARTING)
def test_the_clauses_of_the_starting_set_are_there(chapter: str) -> None:
    missing = {f"{chapter}.{name}" for name in STARTING[chapter].split()} - {*CLAUSES}
    assert not missing, f"{sorted(missing)} are gone: ids stay, and never change meaning"


@for_each(CLAUSES)
def test_a_clause_has_an_id_of_its_chapter(each: Clause) -> None:
    assert CLAUSES[each.id] is each
    assert re.fullmatch(r"[a-z-]+\.[a-z0-9]+(-[a-z0-9]+)*", each.id)
    assert each.chapter in CHAPTERS
    assert each.level in ("MUST", "SHOULD")


@for_each(CLAUSES)
def test_a_clause_says_one_sentence_and_why_it_matters(each: Clause) -> None:
    sentence = re.fullmatch(r"[A-Z][^\n]*\.", each.statement)
    assert sentence, f"the docstring of {each.id} is no sentence: {each.statement}"
    ends = re.findall(r"\.(?= +[A-Z])", each.statement)
    assert not ends, f"{each.id} says more than one sentence: {each.statement}"
    assert len(each.why.split()) >= 5, f"the why of {each.id} names no harm: {each.why}"
    assert each.why.endswith("."), each.why
    assert "\n" not in each.why


@for_each(CLAUSES)
def test_a_clause_names_families_of_bugs_by_their_numbers(each: Clause) -> None:
    assert all(re.fullmatch(r"M\d\d", bug) for bug in each.bugs), each.bugs
    assert len(set(each.bugs)) == len(each.bugs), each.bugs


@for_each(CLAUSES)
def test_a_clause_has_events_that_are_registered_and_differ(each: Clause) -> None:
    assert each.events
    assert len(set(each.events)) == len(each.events)
    assert [event.slug for event in each.witnesses()] == list(each.events)
    assert [event.slug for event in each.witnesses(bulk=True)] == [*each.events, *each.bulk]


@for_each(CLAUSES)
def test_a_clause_narrows_axes_that_there_are_to_values_that_they_have(each: Clause) -> None:
    for axis, wanted in each.narrow.items():
        assert axis in vars(Claim()), f"{each.id} narrows {axis}, which is no axis"
        assert wanted, axis
    assert each.narrowed(Capabilities(claims=(Claim.whole(),))).claims, (
        f"{each.id} leaves nothing of the whole spec"
    )


@for_each(CLAUSES)
def test_a_clause_looks_where_there_is_something(each: Clause) -> None:
    assert each.focus.recipes
    assert {*each.focus.recipes} <= {*RECIPES}
    assert each.focus.biases
    assert {*each.focus.biases} <= {*BIASES}


def test_no_event_is_left_without_a_clause_that_needs_it() -> None:
    needed = {slug for each in CLAUSES.values() for slug in (*each.events, *each.bulk)}
    unused = sorted(set(EVENTS) - needed)
    assert not unused, f"no clause needs {unused}: add each to the events of a clause"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_has_its_page_its_module_and_its_clauses(chapter: str) -> None:
    page = SPEC / f"{chapter}.md"
    assert page.is_file(), f"the chapter {chapter} has no page in docs/spec"
    assert page.read_text().startswith("# "), page
    name = chapter.replace("-", "_")
    assert (ROOT / "conformance" / "clauses" / f"{name}.py").is_file()
    assert any(each.chapter == chapter for each in CLAUSES.values())


class TestSelection:
    def test_all_come_in_the_order_of_the_chapters(self) -> None:
        chapters = [each.chapter for each in select_clauses([])]
        assert chapters == sorted(chapters, key=CHAPTERS.index)
        assert len(chapters) == len(CLAUSES)

    def test_globs_add_up_and_nothing_comes_twice(self) -> None:
        globs = ["weights.su[m]", "[ls]*.match", "weights.sum"]
        ids = [each.id for each in select_clauses(globs)]
        assert ids == ["logits.match", "scores.match", "weights.sum"]

    def test_a_glob_that_matches_nothing_suggests_the_nearest(self) -> None:
        with pytest.raises(NoSuchClause, match=r"did you mean groups\.kept-only"):
            select_clauses(["groups.kept_only"])


class TestRegistration:
    GOOD: ClassVar[dict[str, Any]] = {
        "why": "It matters.",
        "rules": ("WGT-1",),
        "events": ("any-case",),
    }

    @pytest.mark.parametrize(
        ("id_", "parts", "words"),
        [
            ("weights.match", {}, "weights.match"),
            ("wieghts.new", {}, "wieghts.new"),
            ("weights.new", {"events": ("any-cas",)}, "any-cas"),
            ("weights.new", {"events": ()}, "unknown events"),
            ("weights.new", {"rules": ()}, "'weights.new': it names no rule of docs/spec"),
            ("weights.new", {"rules": ("WGT1",)}, "'WGT1' is no id of a rule, such as WGT-1"),
            ("weights.new", {"rules": ("WGT-1", "WTG-2")}, "'WTG-2' is no id of a rule"),
            ("weights.new", {"rules": ("WGT-01",)}, "'WGT-01' is no id of a rule"),
            ("weights.new", {"rules": "WGT-1"}, "'W' is no id of a rule"),
        ],
    )
    def test_a_bad_clause_is_refused_in_one_line(
        self, id_: str, parts: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("moe_routing.conformance.clauses.registry.CLAUSES", dict(CLAUSES))
        with pytest.raises(ValueError, match=re.escape(words)) as refused:

            @clause(id_, "MUST", **{**self.GOOD, **parts})
            def check(trial: object) -> None:
                """It holds."""

        assert "\n" not in str(refused.value)

    def test_a_clause_that_says_nothing_of_rules_is_refused(self) -> None:
        with pytest.raises(ValueError, match="it names no rule"):

            @clause("weights.new", "MUST", why="It matters.", events=("any-case",))
            def check(trial: object) -> None:
                """It holds."""

    def test_a_clause_without_a_statement_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"weights\.new"):
            clause("weights.new", "MUST", **self.GOOD)(lambda t: None)


@pytest.mark.parametrize(("name", "examples"), [("reference", 5), ("torch", 2)])
def test_a_right_router_passes_every_clause(
    name: str, examples: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = main(["check", name, f"--max-examples={examples}", "--json=report.json"])
    (adapter,) = json.loads(Path("report.json").read_text())["adapters"]
    red = {
        each["id"]: each["message"]
        for each in adapter["clauses"]
        if each["status"] not in ("pass", "unsupported")
    }
    assert code == 0, red
    offers = offered(load_adapter(name))
    held = [each for each in CLAUSES.values() if each.promise in WHOLE_CLAIMS]
    assert len(adapter["clauses"]) == sum(each.method in offers for each in held)
    idle = {each["id"] for each in adapter["clauses"] if each["status"] == "unsupported"}
    idle -= APPLIES_TO_OTHER_LAYOUTS
    assert not idle, f"{idle} were not tried"
    if name == "reference":
        seen = {each["id"]: {*each["events"].values()} for each in adapter["clauses"]}
        whole = {id_ for id_, events in seen.items() if events == {"witnessed"}}
        missed = {*WITNESSED} - {*OF_PROMISES} - whole
        assert not missed, f"{missed} did not see all of their events"


@pytest.mark.parametrize(
    "id_", [id_ for id_ in WITNESSED if CLAUSES[id_].promise not in WHOLE_CLAIMS]
)
def test_a_clause_of_a_promise_witnesses_all_of_its_events(id_: str) -> None:
    plan = Plan(clauses=[CLAUSES[id_]], max_examples=1)
    result = check_clause(HONEST["promises-that-are-kept"].adapter(), CLAUSES[id_], plan)
    assert set(result.events.values()) == {"witnessed"}, result.events
