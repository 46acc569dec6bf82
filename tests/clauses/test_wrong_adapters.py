"""Adapters that are wrong on purpose, run from the command line: caught, reported, never lost."""

from __future__ import annotations

import json
import shlex
import warnings
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from nightly import SERIES, nightly

from moe_routing.conformance import load_case, select_clauses
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.cli import main
from moe_routing.implementations import load_adapter

pytest.importorskip("torch")

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path) -> Iterator[None]:
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    with chdir(tmp_path):  # no patch, after which constructed cases are made anew
        yield


def run(*argv: str) -> int:
    """The exit code, whether argparse raises it or the command returns it."""
    try:
        return main([*argv])
    except SystemExit as usage:
        return int(usage.code or 0)


def check(
    adapter: str, *clauses: str, examples: int = 10, profile: str = "ci"
) -> tuple[int, dict[str, Any]]:
    """The exit code of checking ``wrong_*.py:Name``, and the report of each clause by id.

    In this process, which has imported torch; tests/run is about processes of their own.
    """
    argv = ["check", f"{DATA}/{adapter}", "--max-examples", str(examples), "--json", "report.json"]
    argv += ["--profile", profile]
    code = run(*argv, "--no-isolate", *(f"--clause={each}" for each in clauses))
    report = json.loads(Path("report.json").read_text())
    return code, {each["id"]: each for each in report["adapters"][0]["clauses"]}


# name, the clause that names its bug, stage, most tokens, most experts, what the message says
WRONG = [
    ("BiasedWeights", "weights.unbiased", "weights", 1, 2, "but should be in"),
    ("RoundsTheBlocksBias", "selection.bias-placement", "selection", 1, 2, "bias on the block"),
    ("ZeroGroupFill", "groups.negative-scores", "selection", 1, 2, "the reference selects"),
    ("LastExpertLost", "selection.every-expert-can-win", "selection", 1, 2, "cannot explain"),
    ("Bfloat16Logits", "logits.match", "logits", 1, 2, "but should be in"),
    ("MasksItsLogits", "logits.match", "logits", 1, 2, "but should be in"),
    ("TiesTakeTurns", "invariance.repeatable", "selection", 1, 2, "the same call was repeated"),
    ("PeeksAtNeighbour", "invariance.token-order", "selection", 2, 2, "the reference selects"),
    ("ScalesTensors", "invariance.inputs-unchanged", "layout", 1, 1, "changed its inputs: hidden"),
    ("ReadsScoreInDispatch", "dispatch.sigmoid-with-bias", "weights", 1, 2, "sigmoid is due"),
    ("ClaimsTooMuch", "robustness.answers", "layout", 1, 1, "NotImplementedError: selection_bias"),
    ("ClaimsTooLittle", "robustness.rejects-unclaimed", "layout", 1, 1, "raise Unsupported"),
    ("RefusesWithValueError", "robustness.rejects-unclaimed", "layout", 1, 1, "only softmax ("),
    ("ScalesArrays", "invariance.inputs-unchanged", "layout", 1, 1, "changed its inputs: hidden"),
]


@pytest.mark.parametrize(("name", "clause", "stage", "tokens", "experts", "words"), WRONG)
def test_a_wrong_adapter_fails_the_clause_that_names_its_bug(
    name: str,
    clause: str,
    stage: str,
    tokens: int,
    experts: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, clauses = check(f"wrong_adapters.py:{name}", clause)
    found, out = clauses[clause], capsys.readouterr().out
    assert (code, found["status"]) == (1, "fail"), found["message"]
    assert found["stage"] == stage, found["message"]
    assert words in found["message"]
    assert found["message"] in out
    assert f"went wrong at: {stage}" in out
    assert out.count("Reproduce with: moe-routing replay ") == 1, out

    case, named = load_case(Path(found["case"]))
    assert named == clause, "the case file should name the clause that it broke"
    size = case.inputs.num_tokens, case.config.num_experts
    assert size <= (tokens, size[1]), f"{case.size} is not the smallest"
    assert size[1] <= experts, f"{case.size} is not the smallest"

    assert run("replay", found["case"], f"{DATA}/wrong_adapters.py:{name}") == 1
    same = words if name == "TiesTakeTurns" else found["message"]  # the calls before say whose turn
    assert same in capsys.readouterr().out, "the case alone should give the same"
    unclaimed = clause == "robustness.rejects-unclaimed"  # which the reference has nothing of
    assert run("replay", found["case"]) == unclaimed, "the reference should not fail on the case"


@pytest.mark.parametrize(
    ("name", "clause"),
    [
        ("BiasedWeights", "weights.unbiased"),
        ("ZeroGroupFill", "groups.negative-scores"),
        ("LastExpertLost", "selection.every-expert-can-win"),
    ],
)
def test_the_story_shows_what_was_answered_and_what_was_permitted(
    name: str, clause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, clauses = check(f"wrong_adapters.py:{name}", clause)
    story, out = clauses[clause]["details"], capsys.readouterr().out
    for part in ("answered  experts [", "reference experts [", "permitted logit", "competes in"):
        assert any(part in line for line in story), f"{part!r} is not in {story}"
    assert all(line.strip() in out for line in story), "the terminal should print all of it"


@pytest.mark.parametrize("folder", ["cases", "cases of mine"])
def test_the_command_that_is_printed_reproduces_the_failure(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = f"{DATA}/wrong_adapters.py:BiasedWeights"
    assert run("check", adapter, "--clause=weights.unbiased", f"--cases={folder}") == 1
    (line,) = (x for x in capsys.readouterr().out.splitlines() if "Reproduce with:" in x)
    command = shlex.split(line.partition("Reproduce with:")[2])
    assert command[0] == "moe-routing"
    assert run(*command[1:]) == 1, capsys.readouterr().err


def test_an_array_that_is_written_to_is_an_error_that_says_so() -> None:
    code, clauses = check("wrong_adapters.py:WritesArrays", "invariance.inputs-unchanged")
    found = clauses["invariance.inputs-unchanged"]
    assert (code, found["status"]) in ((1, "error"), (1, "fail"))
    assert "read-only" in found["message"]


RIGHT = ["GradTensors", "Flat", "Dense", "Int32Ids", "Float32Weights", "SlotsReversed"]
DRESS = ("layout.*", "weights.match", "selection.valid-top-k", "invariance.repeatable")


@pytest.mark.parametrize(
    "adapter",
    [
        *(f"wrong_answers.py:{name}" for name in RIGHT),
        "wrong_adapters.py:Router",
        "wrong_adapters.py:Prints",
    ],
)
def test_a_right_answer_in_another_dress_passes(adapter: str) -> None:
    code, clauses = check(adapter, *DRESS, examples=4, profile="smoke")
    broken = {id_: each["message"] for id_, each in clauses.items() if each["status"] == "fail"}
    assert code == 0, broken or clauses


WELL_FORMED, DTYPES = "layout.well-formed", "layout.dtypes"
MALFORMED = {
    "ReturnsNone": "route returned None, not Routing, FlatRouting, RoutingMap or DenseRouting",
    "ReturnsTuple": "route returned a tuple, not Routing",
    "ReturnsList": "route returned a list, not Routing",
    "ReturnsDict": "route returned a dict, not Routing",
    "WeightsOfList": "weights is a list, but should be an array",
    "WeightsNone": "weights is None, but should be an array",
    "IdsNone": "expert_ids is None, but should be an array",
    "WeightsTooWide": "weights has shape (1, 2), but should be (1, 1)",
    "WeightsScalar": "weights has shape (), but should be (1, 1)",
    "IdsTooWide": "expert_ids has shape (1, 2), but should be (1, 1)",
    "IdsFlat": "expert_ids has shape (1,), but should be (1, 1)",
    "LogitsTooWide": "logits has shape (1, 2), but should be (1, 1)",
    "FloatIds": "expert_ids is of dtype float64, but should be integers",
    "BoolIds": "expert_ids is of dtype bool, but should be integers",
    "IntWeights": "weights is of dtype int64, but should be floating point",
    "ComplexWeights": "weights is of dtype complex128, but should be floating point",
    "ObjectWeights": "weights is of dtype object, but should be floating point",
    "TextWeights": "weights is of dtype <U",
    "MetaTensors": "weights cannot be read as an array: ",
    "FlatLacksRoutes": "routes in token_indices, but should have K=",
    "FlatMiscounts": "num_tokens=2, but should be 1",
    "FlatTooShort": "scores has shape (0,), but should be (1,)",
    "DenseOneMore": "routing_map[0] has 2 experts, but should have K=1",
    "DenseOfFloats": "routing_map is of dtype float64, but should be bool",
    "WeightsShapeless": "weights",
    "WeightsUnreadable": "weights cannot be read as an array: ",
    "FlatMiscountsTwice": "num_tokens=",
    "NanWeights": "weights[0, 0]=nan, but the token's scores are finite",
}
MISTAKEN = [
    *((name, WELL_FORMED, words) for name, words in MALFORMED.items()),
    ("Uint8Ids", DTYPES, "expert_ids are uint8, but should be "),
    ("FlatOfInt64", DTYPES, "token_indices are int64, but should be int32"),
    ("FlatBackwards", "layout.flat-token-order", "token_indices[0]=1, but should be 0"),
    ("FlatMispaired", "layout.flat-pairing", "but should be in"),
    ("DenseLeaks", "layout.map-zero-off-route", "probs[0, 1]=0.01 off the map, but should be 0"),
    ("NegativeIds", "selection.in-range", "expert_ids[0]=[-1], but every id should be in [0, 1)"),
    ("IdsBeyond", "selection.in-range", "expert_ids[0]=[1], but every id should be in [0, 1)"),
    ("LeastIds", "selection.in-range", "every id should be in [0, 1)"),
    ("DuplicateIds", "selection.distinct", "[0, 0], but the ids of a token should be distinct"),
    ("NanWeights", "weights.match", "weights[0, 0]=nan, but should be in"),
    ("InfWeights", "weights.match", "weights[0, 0]=inf, but should be in"),
    ("NanLogits", "logits.match", "logits[0, 0]=nan, but should be in"),
    ("NoLogits", "logits.match", "logits=None, but capabilities say logits='routed'"),
]


@pytest.mark.parametrize(("name", "clause", "words"), MISTAKEN)
def test_a_bad_answer_fails_with_what_it_is_and_what_it_should_be(
    name: str, clause: str, words: str
) -> None:
    code, clauses = check(f"wrong_answers.py:{name}", clause)
    assert (code, clauses[clause]["status"]) == (1, "fail"), clauses[clause]["message"]
    assert words in clauses[clause]["message"]


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("SharesAll", "pass", ""),
        ("SharesFloat32", "pass", ""),
        ("SharesNone", "fail", "returned None, but there is a shared expert"),
        ("SharesTwice", "fail", "but should be in"),
        ("SharesNan", "fail", "=nan, but should be in"),
        ("SharesRow", "error", "shared_experts has shape (1, 1), but should be (2, 1)"),
        ("SharesDict", "error", "shared_experts"),
        ("SharesText", "error", "shared_experts"),
        ("SharesComplex", "error", "shared_experts"),
    ],
)
def test_a_contribution_of_shared_experts_is_judged(name: str, status: str, words: str) -> None:
    code, clauses = check(f"wrong_adapters.py:{name}", "shared-experts.plural")
    found = clauses["shared-experts.plural"]
    assert (code, found["status"]) == (int(status != "pass"), status), found["message"]
    assert words in found["message"]


RAISING = [
    ("RaisesValueError", "raised ValueError: no such luck"),
    ("RaisesKeyError", "raised KeyError: 'gate'"),
    ("RaisesRecursionError", "raised RecursionError: too deep"),
    ("RaisesUnsupported", "raised Unsupported on a call that it claims: not today"),
    ("RaisesAtLength", "raised RuntimeError: far too much to say"),
    ("RaisesUnspeakable", "raised Unspeakable"),
    ("Exits", "raised SystemExit"),
    ("Stops", "raised Stop: enough"),
]


@pytest.mark.parametrize(("name", "words"), RAISING)
def test_an_exception_on_a_claimed_call_fails_in_one_line(name: str, words: str) -> None:
    code, clauses = check(f"wrong_answers.py:{name}", "robustness.answers", "weights.match")
    assert code == 1
    answers, weights = clauses["robustness.answers"], clauses["weights.match"]
    assert (answers["status"], weights["status"]) == ("fail", "error")
    assert words in answers["message"]
    assert words in weights["message"]
    assert "\n" not in answers["message"]
    assert len(answers["message"]) <= 300


@pytest.mark.parametrize(
    "name", ["ReturnsNone", "NanWeights", *nightly([], ["LeastIds", "NanLogits"])]
)
def test_every_clause_comes_to_a_verdict_on_a_bad_answer(name: str) -> None:
    adapter = load_adapter(f"{DATA}/wrong_answers.py:{name}")
    clauses = select_clauses([])
    plan = Plan(clauses=clauses, max_examples=1, series=nightly(SERIES, None))
    results = [check_clause(adapter, clause, plan) for clause in clauses]
    assert any(result.status in ("fail", "error") for result in results), "nothing caught it"
    silent = [r.id for r in results if r.status in ("fail", "error") and not r.message]
    assert not silent, f"{silent} say nothing"


def test_logits_that_come_and_go_are_not_repeatable() -> None:
    code, clauses = check("wrong_adapters.py:Forgetful", "invariance.repeatable")
    assert (code, clauses["invariance.repeatable"]["status"]) == (1, "fail")


class TestClaimsNothing:
    def test_is_red_since_nothing_was_checked(self) -> None:
        code, clauses = check("wrong_adapters.py:ClaimsNothing")
        assert code == 1
        assert {each["status"] for each in clauses.values()} == {"unsupported"}

    def test_is_reported_so(self) -> None:
        _, clauses = check("wrong_adapters.py:ClaimsNothing", "weights.match")
        assert clauses["weights.match"]["message"] == "the adapter claims nothing"
