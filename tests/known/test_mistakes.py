"""Mistakes about known divergences: ids that two entries share, and adding what cannot be added."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moe_routing.conformance import Case, load_known, save_case
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.cli import main
from moe_routing.conformance.known.divergence import KnownError
from moe_routing.reference import RouterConfig, RouterInputs

DATA = Path(__file__).parents[1] / "data"
WRONG = f"{DATA}/wrong_adapters.py:BiasedWeights"
ROUTER = f"{DATA}/wrong_adapters.py:Router"
FILE = Path("known.toml")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inputs = RouterInputs(hidden=np.eye(2), gate_weight=np.eye(2), selection_bias=np.ones(2))
    case = Case(config=RouterConfig(num_experts=2, top_k=1), inputs=inputs)
    save_case(case, Path("case.json"), clause="weights.unbiased")


def listed(path: Path, *entries: tuple[str, str]) -> Path:
    """Write a list of entries, each an id and an adapter, with a witness of its own."""
    text = ""
    for number, (id_, adapter) in enumerate(entries):
        witness = path.with_name(f"{path.stem}-{number}.json")
        witness.write_bytes(Path("case.json").read_bytes())
        text += f'[[divergence]]\nid = "{id_}"\nadapters = ["{adapter}"]\nreason = "r"\n'
        text += f'clause = "weights.unbiased"\nlink = "l"\nwitness = "{witness.name}"\n'
    path.write_text(text)
    return path


class TestIds:
    def test_an_id_is_of_one_entry(self) -> None:
        listed(FILE, ("twice", "a"), ("once", "a"), ("twice", "b"))
        with pytest.raises(KnownError) as error:
            load_known(FILE)
        words = "known.toml:15 has the id 'twice', which is taken by known.toml:1: use another"
        assert str(error.value) == words

    def test_of_one_entry_of_all_the_files_that_are_read_together(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        files = [listed(Path(f"{name}.toml"), ("mine", "reference")) for name in ("one", "two")]
        known = [f"--known={path}" for path in files]
        assert main(["check", "reference", "--clause=weights.unbiased", *known]) == 2
        words = "two.toml:1 has the id 'mine', which is taken by one.toml:1: use another\n"
        assert capsys.readouterr().err == f"moe-routing: {words}"

    def test_prune_takes_out_nothing_where_two_share_one(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        listed(FILE, ("twice", "right"), ("twice", "biased-weights"))
        before = {path: path.read_bytes() for path in Path().iterdir()}
        assert main(["known", "prune", WRONG, ROUTER, "--known=known.toml"]) == 2
        assert "has the id 'twice'" in capsys.readouterr().err
        assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_a_witness_is_of_the_kind_that_the_clause_is_about() -> None:
    listed(FILE, ("mine", "a"))
    Path("known-0.json").write_bytes((DATA / "cases" / "shared-gated.json").read_bytes())
    with pytest.raises(KnownError, match=r"'mine': weights.unbiased is not about the kind of case"):
        load_known(FILE)


MORE = ("--known=known.toml", "--id=mine", "--reason=it adds the bias", "--link=l")


class TestAdd:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["transformers:q*moe", *MORE], "one adapter, but transformers:q*moe matches 2: "),
            ([WRONG, *MORE, ROUTER], f"one adapter, but {WRONG} {ROUTER} matches 2: {WRONG}, "),
            (
                [WRONG, *MORE, "--clause=weights.s[cu]*"],
                "one clause, but weights.s[cu]* matches 2: weights.",
            ),
        ],
    )
    def test_what_stands_for_several_is_refused_in_one_line(
        self, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["known", "add", "case.json", *words]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"moe-routing: known add takes {message}")
        assert said.endswith("; give one of them\n")
        assert said.count("\n") == 1
        assert not FILE.exists()

    def test_the_same_adapter_twice_is_one(self) -> None:
        assert main(["known", "add", "case.json", WRONG, *MORE, WRONG]) == 0
        assert [each.id for each in load_known(FILE)] == ["mine"]

    def test_a_clause_that_the_case_is_not_about_is_refused(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        case = f"{DATA}/cases/shared-gated.json"
        assert main(["known", "add", case, "reference", *MORE, "--clause=weights.match"]) == 2
        assert "weights.match is not about the kind of case in" in capsys.readouterr().err
        assert not FILE.exists()

    def test_what_went_wrong_in_the_suite_is_not_listed(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        clause = CLAUSES["weights.unbiased"]
        monkeypatch.setitem(CLAUSES, clause.id, replace(clause, check=lambda trial: 1 // 0))
        assert main(["known", "add", "case.json", WRONG, *MORE, "--no-isolate"]) == 2
        said = capsys.readouterr().err
        words = "moe-routing: case.json cannot be listed: the suite itself went wrong: ZeroDivision"
        assert said.startswith(words)
        assert not FILE.exists()
