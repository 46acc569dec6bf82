"""``moe-routing zoo``: what it prints, writes and exits with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moe_routing.conformance.cli import main
from moe_routing.conformance.zoo import HONEST, MUTANTS

DOCS = Path(__file__).parents[2] / "docs"
QUICK = ("--max-examples", "10", "--jobs", "1", "--clause", "weights.scale")


def test_a_caught_mutant_and_an_honest_variant_exit_0(capsys, tmp_path):
    json_file, page = tmp_path / "made" / "zoo.json", tmp_path / "zoo.md"
    names = ["scale-twice", "one-ulp-reciprocal"]
    code = main(["zoo", *names, *QUICK, "--json", str(json_file), "--markdown", str(page)])
    assert code == 0
    out = capsys.readouterr().out
    assert "seed 0: 1 of 1 mutants caught, 100% within 100 drawn cases" in out
    assert "1 of 1 honest variants passed" in out
    written = json.loads(json_file.read_text())
    (mutant,), (variant,) = written["mutants"], written["variants"]
    assert (mutant["name"], mutant["family"]) == ("scale-twice", "M22")
    assert mutant["kills"][0]["clause"] == "weights.scale"
    assert mutant["kills"][0]["names_family"]
    assert variant == {
        "name": "one-ulp-reciprocal",
        "why": HONEST["one-ulp-reciprocal"].why,
        "declares": [],
        "alarms": [],
    }
    assert "| `scale-twice` |" in page.read_text()


def test_a_survivor_exits_1_and_is_named(capsys):
    name = "float-mode-left-changed"
    assert main(["zoo", name, *QUICK]) == 1
    out = capsys.readouterr().out
    assert f"survives {name} (seed 0): {MUTANTS[name].harm}" in out
    assert "without" not in out.partition("survives")[2]


def test_a_survivor_is_shown_with_the_clause_that_caught_it_without_naming_its_family(capsys):
    quick = ("--max-examples", "10", "--jobs", "1", "--clause", "weights.tiny-norm")
    assert main(["zoo", "scale-twice", *quick]) == 1
    out = capsys.readouterr().out
    assert "  caught by weights.tiny-norm, without M22 in their bugs" in out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["bias-ignord"], "No mutant or variant matches 'bias-ignord': did you mean bias-ignored"),
        (["one-ulp-reciprocal", "--only", "mutants"], "No mutant matches 'one-ulp-reciprocal'"),
        (["--clause", "weight.*"], "No clause matches 'weight.*'"),
    ],
)
def test_what_is_not_there_exits_2_in_one_line(capsys, words, line):
    assert main(["zoo", *words]) == 2
    err = capsys.readouterr().err
    assert line in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("page", "house"), [("zoo.md", MUTANTS), ("zoo-variants.md", HONEST)])
def test_the_pages_list_all_who_live_here(page, house):
    text = (DOCS / page).read_text()
    for name in house:
        assert f"| `{name}` |" in text, (
            f"docs/{page} is older than {name}: run the command at its head"
        )
    assert "**survives**" not in text
