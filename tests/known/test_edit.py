"""The list of known divergences, edited by commands: additions, pruning, width and mistakes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance import Case, Divergence, Plan, load_known, save_case
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.region_width import Width
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.cli import main
from moe_routing.conformance.known import edit
from moe_routing.conformance.known.divergence import KnownError
from moe_routing.conformance.known.edit import add_entry, parse_value, remove_entries
from moe_routing.implementations import load_adapter
from moe_routing.reference import RouterConfig, RouterInputs

WRONG = f"{Path(__file__).parents[1]}/data/wrong_adapters.py:BiasedWeights"
ROUTER = f"{Path(__file__).parents[1]}/data/wrong_adapters.py:Router"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path) -> Iterator[None]:
    with chdir(tmp_path):  # no patch, after which constructed cases are made anew
        yield


def biased(*, score: str = "softmax") -> Case:
    """A call whose weights show a selection bias that was added to them."""
    inputs = RouterInputs(hidden=np.eye(2), gate_weight=np.eye(2), selection_bias=np.ones(2))
    return Case(config=RouterConfig(num_experts=2, top_k=1, score=score), inputs=inputs)


def entry(**parts: Any) -> dict[str, Any]:
    plain = {
        "id": "biased-weights",
        "adapters": ["biased-weights"],
        "clause": "weights.unbiased",
        "reason": 'it adds the bias; it says "so"',
        "link": "https://example.org/1",
    }
    return {**plain, **parts}


FILE = Path("known.toml")


class TestAddEntry:
    def test_what_is_added_is_read_again(self) -> None:
        added = add_entry(FILE, entry(affects=["weights.*"], when={"tokens": 2}), biased())
        (again,) = load_known(FILE)
        assert again.reason == added.reason == 'it adds the bias; it says "so"'
        assert (again.affects, again.when) == (("weights.*",), {"tokens": (2,)})
        assert again.place == "known.toml:1"

    def test_comments_and_entries_stay_as_they_are(self) -> None:
        before = "# ours\n[[divergence]]  # the first\n"
        save_case(biased(), Path("first.json"))
        before += 'id = "first"\nadapters = "a"\nclause = "weights.match"\nreason = "r"\n'
        before += 'link = "l"\nwitness = "first.json"\n'
        FILE.write_text(before)
        added = add_entry(FILE, entry(), biased())
        assert FILE.read_text().startswith(before)
        assert added.place == "known.toml:10"

    @pytest.mark.parametrize(
        ("parts", "words"),
        [
            ({"id": "Not a slug"}, "Invalid id 'Not a slug': use lowercase letters, digits and "),
            ({"affects": ["wieghts.*"]}, "affects 'wieghts.*' matches no clause"),
            ({"when": {"score": "sigmoyd"}}, "when.score is 'sigmoyd', but should be 'softmax'"),
            ({"when": {"score": "sigmoid"}}, "does not cover the case itself"),
            ({"reason": ""}, "reason is missing or empty"),
            ({"when": {"events": [["x"]]}}, "unknown event ['x']"),
        ],
    )
    def test_a_mistake_leaves_nothing_behind(self, parts: dict[str, Any], words: str) -> None:
        with pytest.raises(KnownError, match=r".") as error:
            add_entry(FILE, entry(**parts), biased())
        assert words in str(error.value)
        assert not list(Path().iterdir()), "neither the file nor the witness"

    @pytest.mark.parametrize("before", [b"", b"# ours\r\n"])
    def test_whatever_goes_wrong_the_file_is_as_it_was(
        self, before: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(added: Divergence) -> None:
            raise KeyboardInterrupt

        FILE.write_bytes(before)
        monkeypatch.setattr(edit, "_check_witness", interrupted)
        with pytest.raises(KeyboardInterrupt):
            add_entry(FILE, entry(), biased())
        assert FILE.read_bytes() == before
        assert [path.name for path in Path().iterdir()] == ["known.toml"]

    def test_a_file_that_is_no_text_is_reported(self) -> None:
        FILE.write_bytes(b"\xff\xfe")
        with pytest.raises(KnownError, match=r"^Cannot read known.toml: "):
            add_entry(FILE, entry(), biased())

    def test_an_id_is_taken_once(self) -> None:
        add_entry(FILE, entry(), biased())
        with pytest.raises(KnownError, match=r"known.toml:1 already has the id 'biased-weights'"):
            add_entry(FILE, entry(), biased())

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("sigmoid", "sigmoid"),
            ("0", 0),
            ("1e-20", 1e-20),
            ("true", True),
            ('["a", "b"]', ["a", "b"]),
            ("-inf", float("-inf")),
            ("tie at cut", "tie at cut"),
        ],
    )
    def test_a_value_is_read_as_toml_or_as_a_word(self, text: str, value: Any) -> None:
        assert parse_value(text) == value


class TestRemoveEntries:
    def test_entries_and_their_witnesses_go_and_comments_of_others_stay(self) -> None:
        for name in ("one", "two", "three"):
            add_entry(FILE, entry(id=name), biased())
        text = FILE.read_text().replace(
            '[[divergence]]\nid = "three"', '# about three\n[[divergence]]\nid = "three"'
        )
        FILE.write_text("# the list\n" + text)
        remove_entries(FILE, ["two"])
        assert [each.id for each in load_known(FILE)] == ["one", "three"]
        assert FILE.read_text().startswith("# the list\n")
        assert "# about three\n[[divergence]]" in FILE.read_text()
        assert sorted(path.name for path in Path().glob("*.json")) == ["one.json", "three.json"]

    def test_a_witness_that_another_entry_names_stays(self) -> None:
        add_entry(FILE, entry(id="one"), biased())
        add_entry(FILE, entry(id="two"), biased())
        FILE.write_text(FILE.read_text().replace("two.json", "one.json"))
        remove_entries(FILE, ["one"])
        assert [each.id for each in load_known(FILE)] == ["two"]


class TestCommands:
    def add(self, adapter: str = WRONG, *more: str) -> int:
        save_case(biased(), Path("case.json"), clause="weights.unbiased")
        argv = ["known", "add", "case.json", adapter, "--known=known.toml", "--id=biased-weights"]
        return main([*argv, "--reason=it adds the bias", "--link=https://example.org", *more])

    def test_add_lists_a_failing_case_and_the_gate_is_green(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        more = ('--when=selection_bias=["gate", "block", "statics"]', "--affects=weights.*")
        assert self.add(WRONG, *more) == 0
        assert capsys.readouterr().out.startswith("added biased-weights at known.toml:1: ")
        argv = ["check", WRONG, "--clause=weights.unbiased", "--max-examples=5", "--no-isolate"]
        assert main([*argv, "--known=known.toml"]) == 0

    def test_add_refuses_a_case_that_does_not_fail(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.add(ROUTER) == 2
        err = capsys.readouterr().err
        assert "case.json passes on right; only failing cases can be listed" in err
        assert not FILE.exists()

    def test_a_repaired_divergence_is_red_and_names_its_line(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.add()
        FILE.write_text(FILE.read_text().replace('["biased-weights"]', '["right"]'))
        argv = ["check", ROUTER, "--clause=weights.unbiased", "--max-examples=2"]
        assert main([*argv, "--known=known.toml"]) == 1
        words = "the known divergence biased-weights is gone: remove its entry (known.toml:1)"
        assert words in capsys.readouterr().out

    def test_prune_takes_out_what_is_fixed_and_keeps_the_rest(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.add()
        assert main(["known", "prune", WRONG, "--known=known.toml"]) == 0
        assert capsys.readouterr().out.endswith("0 removed, 1 kept\n")
        FILE.write_text(
            FILE.read_text().replace('["biased-weights"]', '["biased-weights", "right"]')
        )
        assert main(["known", "prune", WRONG, ROUTER, "--known=known.toml"]) == 0
        said = capsys.readouterr().out
        words = "biased-weights is fixed on some of its adapters; remove right from `adapters`"
        assert f"known.toml:1: {words}" in said
        FILE.write_text(FILE.read_text().replace('["biased-weights", "right"]', '["right"]'))
        assert main(["known", "prune", ROUTER, "--known=known.toml"]) == 0
        said = capsys.readouterr().out
        assert "removed biased-weights, which was at known.toml:1\n1 removed, 0 kept" in said
        assert load_known(FILE) == []
        assert not Path("biased-weights.json").exists()


class TestMistakes:
    @pytest.mark.parametrize(
        ("when", "words"),
        [
            ({"score": "Sigmoid"}, "when.score is 'Sigmoid', but should be 'softmax', "),
            ({"dtype": "fp16"}, "when.dtype is 'fp16', but should be "),
            ({"groups": "yes"}, "when.groups is 'yes', but should be 'present' or 'absent'"),
            ({"gate_delta": 1}, "when.gate_delta is 1, but should be true or false"),
            ({"selection_bias": "gates"}, "when.selection_bias is 'gates', but should be 'none', "),
            ({"tokens": "none"}, "when.tokens is 'none', but should be a number"),
            ({"groups.fill": "minus"}, "when.groups.fill is 'minus', but should be a number"),
            ({"top_k": ">two"}, "when.top_k is '>two', but should be a number"),
            ({"score": ">1"}, "when.score is '>1', but should be 'softmax', "),
            ({"top_k": "two"}, "when.top_k is 'two', but should be a number"),
            ({"scores_dtype": "float64"}, "when.scores_dtype is 'float64', but should be "),
        ],
    )
    def test_a_value_that_nothing_can_have_is_refused(
        self, when: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(KnownError) as error:
            add_entry(FILE, entry(when=when), biased())
        assert words in str(error.value)
        assert "\n" not in str(error.value)


class TestWidth:
    """What most of a region does not need is found, and turns nothing red."""

    def found(self, *, shipped: bool = False, **when: tuple[Any, ...]) -> Any:
        wide = Divergence(
            id="wide",
            adapters=("biased-weights",),
            clause="weights.match",
            reason="r",
            link="l",
            witnesses=(biased(),),
            when=when,
            place="known.toml:1",
            shipped=shipped,
        )
        clause = CLAUSES["weights.match"]
        plan = Plan(clauses=[clause], max_examples=200, known=[wide], seed=1)
        return check_clause(load_adapter(WRONG), clause, plan)

    def test_a_region_wider_than_the_bug_is_reported_with_its_share_and_the_fix(self) -> None:
        result = self.found(weights_from=("scores",))
        assert result.status == "known", "a wide entry is still true"
        (finding,) = result.findings
        assert finding.startswith("wide covers too much: ")
        assert " cases sampled in its region pass; the " in finding
        assert finding.endswith("(known.toml:1)")

    def test_a_shipped_region_is_not_the_business_of_those_who_check(self) -> None:
        result = self.found(shipped=True, weights_from=("scores",))
        assert (result.status, result.findings) == ("known", ())

    def test_a_region_as_narrow_as_the_bug_is_not(self) -> None:
        result = self.found(selection_bias=("gate", "block", "statics"))
        assert (result.status, result.findings) == ("known", ())

    @pytest.mark.parametrize(
        ("checked", "passed", "wide"),
        [(20, 11, True), (20, 10, False), (4, 4, False), (0, 0, False)],
    )
    def test_too_wide_is_where_most_of_several_pass(
        self, checked: int, passed: int, wide: bool
    ) -> None:
        assert Width(checked=checked, passed=passed).too_wide is wide


def test_a_clause_of_which_nothing_is_left_to_check_is_no_pass() -> None:
    everything = Divergence(
        id="all",
        adapters=("biased-weights",),
        clause="weights.unbiased",
        reason="r",
        link="l",
        witnesses=(biased(),),
        affects=("weights.*",),
    )
    clause = CLAUSES["weights.sum"]
    plan = Plan(clauses=[clause], max_examples=3, known=[everything])
    result = check_clause(load_adapter(WRONG), clause, plan)
    assert (result.status, result.message) == ("known", "all")


def test_the_shipped_lists_are_as_their_files_say() -> None:
    from moe_routing.implementations import shipped_known

    for path in shipped_known():
        for each in load_known(path):
            line = int(each.place.rpartition(":")[2])
            assert path.read_text().splitlines()[line - 1] == "[[divergence]]"
            assert path.read_text().splitlines()[line] == f'id = "{each.id}"'
