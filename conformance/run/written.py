"""The failing cases of an adapter, written to files; what cannot be written costs no verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.cases.files import case_folder, save_case
from moe_routing.conformance.cases.kept import example_path
from moe_routing.conformance.cases.whole import reason
from moe_routing.conformance.checking.results import AdapterResult, ClauseResult


def with_case_files(
    result: AdapterResult, cases: Path | None, examples: Path | None, twins: int
) -> AdapterResult:
    """Write the failing cases under ``cases``, and for later runs under ``examples``.

    ``twins`` of the adapter's name were checked before it.
    """
    clauses = result.clauses
    if cases is not None:
        folder = cases / (case_folder(result.name) + (f"-{twins + 1}" if twins else ""))
        clauses = tuple(with_case_file(each, folder) for each in clauses)
    if examples is not None:
        clauses = tuple(_with_example(each, examples) for each in clauses)
    return replace(result, clauses=clauses)


def with_case_file(result: ClauseResult, folder: Path) -> ClauseResult:
    """Write the failing case of a clause, where there is one, and note where, or why not."""
    if result.case is None:
        return result
    path = folder / f"{result.id}.json"
    if why := _unwritten(result.case, path, result.id):
        return _noting(result, f"the case could not be written to {path}: {why}")
    return replace(result, case_file=str(path))


def _with_example(result: ClauseResult, folder: Path) -> ClauseResult:
    if result.case is None:
        return result
    path = example_path(folder, result.id, result.case)
    why = _unwritten(result.case, path, result.id)
    return _noting(result, f"the case could not be kept in {path}: {why}") if why else result


def _unwritten(case: AnyCase, path: Path, clause: str) -> str:
    """Write a case file; return why that could not be, or nothing where it was."""
    try:
        save_case(case, path, clause=clause)
    except OSError as error:
        return reason(error)
    return ""


def _noting(result: ClauseResult, words: str) -> ClauseResult:
    return replace(result, unwritten=(*result.unwritten, words))
