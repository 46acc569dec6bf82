"""The schema of case files: every file that was ever committed, or is written now, keeps to it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from schemas import mistakes

from moe_routing.conformance.cases.files import SCHEMA, case_from_json, case_to_json, load_case

CORPUS = sorted((Path(__file__).parents[1] / "data" / "cases").glob("*.json"))
FILE = Path(__file__).parents[2] / "docs" / "case.schema.json"
pytestmark = pytest.mark.skipif(not FILE.is_file(), reason="the docs are not here")


def mistakes_in(data: Any) -> list[str]:
    schema = json.loads(FILE.read_text())
    return mistakes(data, schema, schema)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_every_committed_case_keeps_to_the_schema(path: Path) -> None:
    assert mistakes_in(json.loads(path.read_text())) == []


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_what_is_written_now_keeps_to_it(path: Path) -> None:
    case, clause = load_case(path)
    assert mistakes_in(json.loads(json.dumps(case_to_json(case, clause=clause)))) == []


def test_the_schema_is_of_this_version() -> None:
    assert json.loads(FILE.read_text())["properties"]["schema"]["const"] == SCHEMA


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data.pop("clause"), "clause is missing"),
        (lambda data: data.update(kind="gradient"), "'gradient' is none of"),
        (lambda data: data["inputs"]["hidden"].pop("values"), "values is missing"),
        (lambda data: data["inputs"]["hidden"].update(order="C"), "unknown order"),
        (lambda data: data["inputs"]["hidden"]["values"].append(None), "None is no number"),
    ],
)
def test_the_schema_refuses_what_is_none(change: Any, words: str) -> None:
    data = json.loads(CORPUS[0].read_text())
    change(data)
    assert any(words in each for each in mistakes_in(data)), mistakes_in(data)


def test_a_field_that_an_older_file_has_not_is_at_its_default() -> None:
    """A later version may add fields to a configuration; older files must still read."""
    data = json.loads(next(p for p in CORPUS if p.stem == "grouped-sigmoid").read_text())
    older = copy.deepcopy(data)
    del older["config"]["input_norm"], older["config"]["logit_multiplier"]
    assert case_from_json(older)[0].config == case_from_json(data)[0].config
