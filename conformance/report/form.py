"""The schema that readers of a report rely on, validated in one place."""

from __future__ import annotations

from typing import Any, get_args

from moe_routing.conformance.checking.status import Status
from moe_routing.conformance.report.report import SCHEMA
from moe_routing.reference.checks import shown

_CLAUSE = {
    "id": str,
    "status": get_args(Status),
    "constructed": int,
    "examples": int,
    "message": str,
}
_ADAPTER = {
    "name": str,
    "wraps": {"package": str | None, "version": str | None},
    "device": str,
    "clauses": [_CLAUSE],
}
_REPORT = {
    "suite_version": str,
    "environment": {"packages": {}},
    "profile": str,
    "seed": int,
    "max_examples": int,
    "adapters": [_ADAPTER],
}
_LATER = {"device"}  # keys that the first reports had not
_WORDS = {str: "a string", int: "a whole number", str | None: "a string or null"}


def check_report(report: Any) -> None:
    """Raise ``ValueError`` naming the first place at which ``report`` is of another form."""
    _check("it", report, {"schema": int})
    if report["schema"] > SCHEMA:
        raise ValueError(f"schema {report['schema']} is newer than {SCHEMA}: update the suite")
    _check("it", report, _REPORT)


def _check(at: str, value: Any, form: Any) -> None:
    """Check ``value`` against a table of forms, a list of one form, some words, or a kind."""
    if isinstance(form, dict):
        _check_table(at, value, form)
    elif isinstance(form, list):
        _require(isinstance(value, list), at, value, "a JSON array")
        for number, each in enumerate(value):
            _check(f"{at}[{number}]", each, form[0])
    elif isinstance(form, tuple):
        known = isinstance(value, str) and value in form
        _require(known, at, value, f"{', '.join(form[:-1])} or {form[-1]}")
    else:
        right = isinstance(value, form) and not isinstance(value, bool)
        _require(right, at, value, _WORDS[form])


def _check_table(at: str, value: Any, form: dict[str, Any]) -> None:
    _require(isinstance(value, dict), at, value, "a JSON object")
    for name, each in form.items():
        where = name if at == "it" else f"{at}.{name}"
        if name in value:
            _check(where, value[name], each)
        elif name not in _LATER:
            raise ValueError(f"{where} is missing")


def _require(right: bool, at: str, value: Any, wanted: str) -> None:
    if not right:
        raise ValueError(f"{at} is {shown(value)}, but should be {wanted}")
