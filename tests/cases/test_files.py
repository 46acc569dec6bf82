"""Case files: every case comes back to the bit, and a broken file is refused in one line."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moe_routing.conformance import (
    Case,
    load_case,
    routing_cases,
    save_case,
    shared_expert_cases,
)
from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.calls.shared_experts import SharedCase
from moe_routing.conformance.cases.files import SCHEMA, CaseError, case_to_json
from moe_routing.conformance.generators.permutation import case_of
from moe_routing.conformance.generators.recipes import RECIPES
from moe_routing.implementations import Capabilities, Claim
from moe_routing.reference import (
    Groups,
    PermutationConfig,
    Renormalize,
    RmsNorm,
    RouterConfig,
    RouterInputs,
    SharedExpertConfig,
    SharedExpertInputs,
)

CORPUS = Path(__file__).parents[1] / "data" / "cases"


def steps(array: np.ndarray) -> tuple[int, ...] | None:
    """The element strides, where they matter."""
    plain = array.flags.c_contiguous or not array.size
    return None if plain else tuple(step // array.itemsize for step in array.strides)


def content(case: AnyCase) -> dict[str, Any]:
    """Everything that a case says, the bits of its arrays included; defaults left out."""
    defaults = {f.name: f.default for f in fields(case.config) if f.default is not MISSING}
    config = {
        name: repr(value)
        for name, value in vars(case.config).items()
        if name not in defaults or repr(value) != repr(defaults[name])
    }
    arrays = {
        name: [array.dtype.name, list(array.shape), steps(array), array.tobytes().hex()]
        for name, array in case.inputs.arrays().items()
    }
    place = getattr(case.inputs, "selection_bias_on", None)
    return {
        "config": config,
        "arrays": arrays,
        "dtype": case.dtype,
        **({"gate_dtype": gate} if (gate := _gate_dtype(case)) != "input" else {}),
        "place": place,
        "recipe": case.recipe,
    }


def _gate_dtype(case: AnyCase) -> str:
    return getattr(case.inputs, "gate_dtype", "input")


def digest(case: AnyCase) -> str:
    return hashlib.sha256(json.dumps(content(case), sort_keys=True).encode()).hexdigest()[:16]


def returned(case: AnyCase, folder: Path) -> AnyCase:
    path = folder / "case.json"
    save_case(case, path, clause="weights.match")
    loaded, clause = load_case(path)
    assert clause == "weights.match"
    return loaded


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cases")


def drawn() -> st.SearchStrategy[AnyCase]:
    """Cases of every recipe, dtype and shape, but none so large that files get slow."""
    few = replace(Capabilities().limits, max_experts=33, max_tokens=17)
    whole = Capabilities(limits=few, claims=(Claim.whole(),))
    given_logits = replace(
        whole, takes="logits", claims=tuple(replace(c, input_norm=(False,)) for c in whole.claims)
    )
    routing = [routing_cases(whole, recipes=(name,)) for name in RECIPES]
    shared = shared_expert_cases(("float32", "bfloat16", "float16"))
    return st.one_of(*routing, routing_cases(given_logits), shared)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(case=drawn())
def test_a_drawn_case_comes_back_to_the_bit(folder: Path, case: AnyCase) -> None:
    loaded = returned(case, folder)
    assert type(loaded) is type(case)
    assert content(loaded) == content(case)


def inputs(**changes: Any) -> RouterInputs:
    given = {"hidden": np.ones((2, 4), np.float32), "gate_weight": np.eye(4, dtype=np.float32)}
    return RouterInputs(**{**given, **changes})


def numbers(*values: float) -> np.ndarray:
    return np.resize(np.array(values, dtype=np.float32), (2, 4))


CONFIG = RouterConfig(num_experts=4, top_k=2)
WIDE = np.arange(80, dtype=np.float32).reshape(8, 10)
LARGEST = np.finfo(np.float32).max
CASES = {
    "not finite": inputs(hidden=numbers(np.nan, np.inf, -np.inf, 1.0)),
    "minus zero": inputs(hidden=numbers(-0.0, 0.0), selection_bias=[-0.0, 0.0, 1.0, -1.0]),
    "subnormal": inputs(hidden=numbers(1e-45, -1.1e-38, np.finfo(np.float32).smallest_normal)),
    "largest": inputs(hidden=numbers(LARGEST, -LARGEST, 1.0 + 2.0**-23)),
    "no tokens": inputs(hidden=np.zeros((0, 4))),
    "masked bias": inputs(selection_bias=[-np.inf, 0.5, -np.inf, 1.0], selection_bias_on="block"),
    "every array": inputs(
        gate_bias=[0.5, -np.inf, 1.0, 2.0],
        selection_bias=[0.25] * 4,
        selection_bias_on="statics",
        gate_delta=np.ones((4, 4)),
        per_expert_scale=[1.0, -2.0, 0.0, 0.5],
        hidden_scale=[1.0, 2.0, 3.0, 4.0],
        dtype="bfloat16",
    ),
    "a float32 gate": inputs(
        gate_weight=[[1.0 + 2.0**-13] * 4] * 4,
        gate_bias=[1.0 + 2.0**-12] * 4,
        dtype="bfloat16",
        gate_dtype="float32",
    ),
    "hash routing": inputs(expert_table=[[0, 3], [2**62, 1]], token_ids=[1, 0]),
    "columns": inputs(hidden=np.asfortranarray(WIDE[:2, :4]), dtype="float16"),
    "every other": inputs(hidden=WIDE[:4:2, 1:9:2], selection_bias=WIDE[:4, 3]),
    "logits": RouterInputs.from_logits([[1.0, -np.inf, 0.5, 2.0], [0.0, -np.inf, 1.0, 1.0]]),
    "broadcast": inputs(hidden=np.broadcast_to(WIDE[0, :4], (3, 4))),
}


@pytest.mark.parametrize("name", CASES)
def test_unusual_arrays_come_back_to_the_bit(name: str, tmp_path: Path) -> None:
    case = Case(config=CONFIG, inputs=CASES[name], recipe=name)
    assert content(returned(case, tmp_path)) == content(case)


@pytest.mark.parametrize("rows", ["[::-1]", "[::-1, ::-1]"])
def test_arrays_laid_out_backwards_come_back(rows: str) -> None:
    program = f"""
import numpy as np
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.cases.files import case_from_json, case_to_json
from moe_routing.reference import RouterConfig, RouterInputs
hidden = np.arange(40, dtype=np.float32).reshape(10, 4){rows}
inputs = RouterInputs(hidden=hidden, gate_weight=np.eye(4))
case = Case(config=RouterConfig(num_experts=4, top_k=2), inputs=inputs)
loaded, _ = case_from_json(case_to_json(case))
assert (loaded.inputs.hidden == hidden).all()
"""  # in a process of its own: what is written next to the array may crash it
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-300:]


@pytest.mark.parametrize(
    "fields_",
    [
        {"top_k": -1, "num_experts": 0},
        {"top_k": 9, "score": "entmax", "scale": np.nan},
        {"scale": np.inf, "logit_softcap": -np.inf, "logit_multiplier": np.nan},
        {"renormalize": Renormalize(eps=1e-20, floor=0.5, order=2.0), "scale": 1e-300},
        {"groups": Groups(count=3, kept=2, top=9, fill=0.0), "input_norm": RmsNorm(eps=1e-5)},
        {"weights_dtype": "input", "weights_from": "masked_scores"},
    ],
)
def test_a_configuration_comes_back_unchecked_and_equal(
    fields_: dict[str, Any], tmp_path: Path
) -> None:
    config = RouterConfig.unchecked(**{"num_experts": 4, "top_k": 2, **fields_})
    loaded = returned(Case(config=config, inputs=inputs()), tmp_path)
    assert repr(loaded.config) == repr(config)


def test_parts_that_no_check_would_pass_come_back(tmp_path: Path) -> None:
    groups = object.__new__(Groups)
    vars(groups).update(count=2, kept=5, top=0, fill=np.nan)
    case = Case(
        config=RouterConfig.unchecked(num_experts=4, top_k=2, groups=groups), inputs=inputs()
    )
    assert repr(returned(case, tmp_path).config) == repr(case.config)


@pytest.mark.parametrize("order", ["stable", "free"])
def test_a_permutation_comes_back(order: Any, tmp_path: Path) -> None:
    case = case_of(PermutationConfig(num_experts=3, order=order), [[2, -1], [0, 2]])
    assert content(returned(case, tmp_path)) == content(case)


def test_a_shared_case_comes_back(tmp_path: Path) -> None:
    arrays = dict.fromkeys(("hidden", "gate_proj", "up_proj", "down_proj"), WIDE[:4, :4].T)
    given = SharedExpertInputs(**arrays, gate=np.ones((1, 4)), dtype="bfloat16")
    case = SharedCase(config=SharedExpertConfig(kind="plural", gated=True), inputs=given)
    assert content(returned(case, tmp_path)) == content(case)


GOOD = case_to_json(Case(config=CONFIG, inputs=inputs()))
LIST = {"shape": [2], "values": [1, 2]}


def with_part(part: str, **changes: Any) -> dict[str, Any]:
    return {**GOOD, part: {**GOOD[part], **changes}}


def hidden(**changes: Any) -> dict[str, Any]:
    return {"shape": [2, 4], "values": [1.0] * 8, **changes}


def with_hidden(**changes: Any) -> dict[str, Any]:
    return with_part("inputs", hidden=hidden(**changes))


BROKEN: list[Any] = [
    ({**GOOD, "schema": SCHEMA + 1}, f"schema {SCHEMA + 1} is newer than {SCHEMA}: update"),
    *(
        ({k: v for k, v in GOOD.items() if k != name}, f"missing '{name}'")
        for name in ("schema", "kind", "recipe", "config", "inputs")
    ),
    ([GOOD], "expected a JSON object, got a list"),
    (None, "expected a JSON object, got a NoneType"),
    (with_part("config", gruops=None), "Unknown RouterConfig fields ['gruops']"),
    (with_part("inputs", hiden=LIST), "unknown key 'hiden'; did you mean hidden?"),
    (with_part("inputs", dtype="float8"), "Expected dtype to be one of"),
    (with_part("inputs", hidden=None), "Expected hidden to be an array"),
    (
        with_part("inputs", hidden={"shape": [2, 4], "values": [1]}),
        "has 1 value, but its shape [2, 4] needs 8",
    ),
    (
        with_part("inputs", hidden={"shape": [2, 1], "values": ["a", 1]}),
        "hidden has 'a' among its values, but should",
    ),
    (with_part("inputs", hidden={"shape": [2, 4]}), "missing 'values'"),
    (with_part("inputs", token_ids=LIST), "expert_table and token_ids together"),
    ({**GOOD, "inputs": []}, "inputs"),
    ({**GOOD, "config": []}, "config"),
    (with_part("config", groups="four"), "groups"),
    (with_part("inputs", token_ids={"shape": [1], "values": [2**80]}), "token_ids"),
    ({**GOOD, "kind": "roting"}, "kind"),
    (with_part("config", groups={"count": 2, "kpt": 1}), "kpt"),
    (with_part("inputs", hidden={"shape": [2, 4], "values": [None] * 8}), "hidden"),
    *(({**GOOD, "clause": x}, f"its clause is {x!r}, but should be") for x in (1, True, ["a"])),
    *(({**GOOD, "recipe": x}, f"its recipe is {x!r}, but should be") for x in (1, None, {})),
    (with_part("config", num_experts="x"), "its num_experts is 'x', but should be an integer"),
    (with_part("config", top_k=None), "its top_k is None, but should be an integer"),
    (with_part("config", top_k=True), "its top_k is True, but should be an integer"),
    (with_part("config", scale="x"), "its scale is 'x', but should be a number, "),
    (with_part("config", scale=None), "its scale is None, but should be a number, "),
    (with_part("config", logit_softcap=[1]), "its logit_softcap is [1], but should be a number, "),
    (with_part("config", weights_from=3), "its weights_from is 3, but should be a string"),
    (
        with_part("config", renormalize={"eps": "0", "floor": 0, "order": 1}),
        "its renormalize.eps is '0', but should be a number, ",
    ),
    *(
        ({**GOOD, "schema": x}, f"its schema is {x!r}, but should be an integer")
        for x in ("1", None)
    ),
    ({**GOOD, "kind": ["routing"]}, "its kind is ['routing'], but should be routing or"),
    *(
        (with_hidden(shape=x), f"hidden has the shape {x!r}, but should have integers of 0 or more")
        for x in ([-1, 2], [-1, 4], [2.0, 4], [True, 8], 8, None)
    ),
    (with_hidden(values=[0.1] * 8), "hidden has 0.1, which is no float32; 0.10000000149011612 is"),
    (with_hidden(values=[1e39] * 8), "hidden has 1e+39, which is no float32"),
    (with_hidden(values=[16777217] * 8), "hidden has 16777217, which is no float32; 16777216.0"),
    (with_hidden(values=[True] * 8), "hidden has True among its values, but should have a number"),
    (with_hidden(values="inf"), "hidden has the values 'inf', but should have a list"),
    (with_hidden(colour=1), "hidden has the key 'colour', but should have shape, values, hex"),
    (with_hidden(hex="00" * 31), "hidden has 31 bytes, but its shape [2, 4] needs 32"),
    (with_hidden(hex="zz"), "hidden has a hex that is no pairs of hexadecimal digits"),
    (
        with_part("inputs", dtype="bfloat16", hidden=hidden(values=[1.00390625] * 8)),
        "Cannot have hidden[0, 0]=1.00390625 in dtype='bfloat16'",
    ),
    (
        with_part("inputs", token_ids={"shape": [2], "values": [0.5, 1]}),
        "token_ids has 0.5 among its values, but should have an integer",
    ),
]


def refusal(path: Path) -> str:
    with pytest.raises(CaseError) as error:
        load_case(path)
    message = str(error.value)
    assert message.startswith(f"Cannot read the case file {path}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("data", "words"), BROKEN)
def test_a_file_with_an_error_is_refused_in_one_line(data: Any, words: str, tmp_path: Path) -> None:
    path = tmp_path / "case.json"
    path.write_text(json.dumps(data))
    assert words in refusal(path)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe\x00", b"adapter = 1", b"[" * 100_000])
def test_a_file_that_is_no_json_is_refused_in_one_line(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "case.json"
    path.write_bytes(data)
    refusal(path)
    assert ("it is empty" in refusal(path)) == (not data)
    assert "No such file" in refusal(tmp_path / "absent.json")


COMMITTED = {
    "grouped-sigmoid": "114a1c52b5e625ce",
    "strided-bfloat16": "02e6c72e8b53d76c",
    "special-float16": "b1db1418f1c008b9",
    "lost-expert-logits": "80eae48e17ad4087",
    "hash-routing": "12591cf794366073",
    "nonsense-empty": "e1c23040b05f097a",
    "shared-gated": "beb405b2adde8067",
}


@pytest.mark.parametrize("name", COMMITTED)
def test_a_committed_case_says_what_it_always_said(name: str) -> None:
    case, clause = load_case(CORPUS / f"{name}.json")
    assert digest(case) == COMMITTED[name], f"{name}.json reads otherwise now: {content(case)}"
    assert clause is not None


def test_every_committed_case_is_looked_at() -> None:
    assert {path.stem for path in CORPUS.glob("*.json")} == set(COMMITTED)


def test_a_file_says_what_the_gate_is_stored_in_only_where_that_is_another_dtype() -> None:
    arrays = {"hidden": np.ones((1, 4), np.float32), "gate_weight": np.eye(4, dtype=np.float32)}
    for gate_dtype, keys in (("input", set()), ("float32", {"gate_dtype"})):
        made = RouterInputs(**arrays, dtype="bfloat16", gate_dtype=gate_dtype)
        written = case_to_json(Case(config=CONFIG, inputs=made, recipe="of a test"))
        assert {"gate_dtype"} & set(written["inputs"]) == keys  # else as older suites read it
