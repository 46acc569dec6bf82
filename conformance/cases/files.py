"""Case files: the bit-exact JSON form of a case, written and read."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.calls.memory import steps_of
from moe_routing.conformance.cases.arrays import read_array
from moe_routing.conformance.cases.kinds import KINDS, Kind
from moe_routing.conformance.cases.whole import reason, write_whole
from moe_routing.reference import SPEC_VERSION
from moe_routing.reference.checks import shown
from moe_routing.reference.jsonform import LATER, PARTS, config_to_json, from_json, to_json

SCHEMA = 1
"""The version of the case file's form; readers refuse what is newer."""

_COUNT = (int, np.integer), "an integer"
_NUMBER = (int, float, np.integer, np.floating), 'a number, "nan", "inf" or "-inf"'
_WORD = (str,), "a string"
_FIELDS: dict[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(("num_experts", "top_k", "count", "kept", "top"), _COUNT),
    **dict.fromkeys(("scale", "logit_softcap", "logit_multiplier"), _NUMBER),
    **dict.fromkeys(("fill", "eps", "floor", "renormalize.order"), _NUMBER),
    "order": _WORD,  # of a permutation, and of a capacity
    "factor": _NUMBER,
    "rate": _NUMBER,
    "minimum": _COUNT,
    **dict.fromkeys(("weights_from", "logits_dtype", "scores_dtype", "weights_dtype"), _WORD),
}
"""What is read before the reference sees it: the kind of value of a field, and its words."""

_LATER = {"gate_dtype": "input"}
"""Words that came later: where they say what older files mean, they are not written."""

_LISTS = re.compile(r"\[[^\[\]{}]*\]")


class CaseError(Exception):
    """A case file cannot be read; the message says which and why."""


def case_folder(adapter: str) -> str:
    """Return the folder of an adapter's case files: its name, as any file system takes it."""
    return adapter.replace("/", "_").replace(":", "_")


def save_case(case: AnyCase, path: Path, *, clause: str | None = None) -> None:
    """Write ``case`` as small, readable, bit-exact JSON; ``clause`` says what it broke.

    Errors: ``OSError``, which names ``path``.
    """
    text = json.dumps(case_to_json(case, clause=clause), indent=1)
    write_whole(path, _LISTS.sub(lambda found: " ".join(found[0].split()), text) + "\n")


def load_case(path: Path) -> tuple[AnyCase, str | None]:
    """Read a case file and the clause it names. Errors: ``CaseError``, in one line."""
    try:
        return case_from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CaseError(f"Cannot read the case file {path}: {_why(error)}") from error


def _why(error: Exception) -> str:
    return f"missing {error}" if isinstance(error, KeyError) else " ".join(reason(error).split())


def case_to_json(
    case: AnyCase, *, clause: str | None = None, compact: bool = False
) -> dict[str, Any]:
    """Return the JSON form of ``case``: every number exact, ``nan`` and ``inf`` as strings.

    ``compact`` gives each array's bytes, ``hex``, in place of its ``values``: unreadable, and
    many times as fast.
    """
    arrays = case.inputs.arrays()
    words = {name: getattr(case.inputs, name) for name in KINDS[case.kind].words}
    words = {name: word for name, word in words.items() if _LATER.get(name) != word}
    inputs: dict[str, Any] = {**words, **{n: _to_json(each, compact) for n, each in arrays.items()}}
    return {
        "schema": SCHEMA,
        "spec_version": SPEC_VERSION,
        "kind": case.kind,
        "clause": clause,
        "recipe": case.recipe,
        "config": config_to_json(case.config),
        "inputs": inputs,
    }


def case_from_json(data: dict[str, Any]) -> tuple[AnyCase, str | None]:
    """Rebuild what ``case_to_json`` wrote. Errors: ``ValueError``, ``KeyError``, ``TypeError``."""
    _require_tables(data, "inputs", "config")
    if not isinstance(data["kind"], str) or data["kind"] not in KINDS:
        raise ValueError(f"its kind is {data['kind']!r}, but should be {' or '.join(KINDS)}")
    if type(data["schema"]) is not int:
        raise ValueError(f"its schema is {shown(data['schema'])}, but should be an integer")
    if data["schema"] > SCHEMA:
        raise ValueError(f"its schema {data['schema']} is newer than {SCHEMA}: update the suite")
    _check_kinds(data)
    kind = KINDS[data["kind"]]
    _check_inputs(kind, data["inputs"])
    inputs = {
        name: read_array(name, value, np.int64 if name in kind.integers else np.float32)
        if isinstance(value, dict)
        else value
        for name, value in data["inputs"].items()
    }
    fields_ = {name: _value(name, value) for name, value in data["config"].items()}
    config, given = kind.config(**fields_), kind.inputs(**inputs)
    return kind.case(config=config, inputs=given, recipe=data["recipe"]), data["clause"]


def _value(name: str, value: Any) -> Any:
    if name not in PARTS or value is None:
        return from_json(value) if name != "score" else value
    part: Any = object.__new__(PARTS[name])
    names = {each.name for each in fields(PARTS[name])}
    later = {key: left_out for key, left_out in LATER.items() if key in names}
    known = names - set(later)
    if not isinstance(value, dict) or set(value) - set(later) != known:
        raise ValueError(f"{name} is {value!r}, but should have keys {', '.join(sorted(known))}")
    for key, number in {**later, **value}.items():
        object.__setattr__(part, key, _value(key, number))
    return part


def _require_tables(data: Any, *names: str) -> None:
    if not isinstance(data, dict):
        raise ValueError(f"expected a JSON object, got a {type(data).__name__}")
    for name in names:
        if not isinstance(data[name], dict):
            kind = type(data[name]).__name__
            raise ValueError(f"expected {name} to be a JSON object, got a {kind}")


def _check_kinds(data: dict[str, Any]) -> None:
    """Raise ``ValueError`` for what is read before the reference sees it, and of another kind."""
    if not isinstance(data["recipe"], str):
        raise ValueError(f"its recipe is {shown(data['recipe'])}, but should be a string")
    if not isinstance(data["clause"], str | None):
        raise ValueError(f"its clause is {shown(data['clause'])}, but should be a string or null")
    _check_numbers(data["config"])


def _check_numbers(table: dict[str, Any], of: str = "") -> None:
    """Raise ``ValueError`` for a number or a word of a configuration that is something else.

    A value out of its bounds is taken: whether a backend rejects it is what is checked.
    """
    for name, value in table.items():
        if name in PARTS and isinstance(value, dict):
            _check_numbers(value, of=f"{name}.")
        elif (key := f"{of}{name}" if f"{of}{name}" in _FIELDS else name) in _FIELDS:
            if name == "logit_softcap" and value is None:
                continue
            kind, words = _FIELDS[key]
            if not isinstance(from_json(value), kind) or isinstance(value, bool):
                raise ValueError(f"its {of}{name} is {shown(value)}, but should be {words}")


def _check_inputs(kind: Kind, inputs: dict[str, Any]) -> None:
    """Raise ``ValueError`` for an input that the kind of case has not."""
    known = [each.name for each in fields(kind.inputs)]
    if unknown := sorted(set(inputs) - set(known)):
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; expected only {', '.join(known)}"
        raise ValueError(f"its inputs have the unknown key {unknown[0]!r}{hint}")


def _to_json(array: npt.NDArray[Any], compact: bool) -> dict[str, Any]:
    steps = steps_of(array)
    return {
        "shape": list(array.shape),
        **({"hex": array.tobytes().hex()} if compact else {"values": to_json(_listed(array))}),
        **({} if steps is None else {"steps": steps}),
    }


def _listed(array: npt.NDArray[Any]) -> list[Any]:
    numbers: list[Any] = array.ravel().tolist()
    return numbers
