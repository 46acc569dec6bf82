"""Where in a repository a broken clause is shown: at the adapter, or else at the failing case."""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass
from pathlib import Path

from moe_routing.conformance.checking.results import AdapterResult, ClauseResult, RunResult
from moe_routing.conformance.report.plain import printable
from moe_routing.conformance.report.text import broken


@dataclass(frozen=True)
class Place:
    """A line of a file, as services that review changes name it: relative, with slashes."""

    path: str
    line: int = 1


@dataclass(frozen=True)
class Finding:
    """One broken clause, with its place and a name that is the same in every run."""

    adapter: AdapterResult
    clause: ClauseResult
    place: Place
    fingerprint: str


def findings(run: RunResult) -> list[Finding]:
    """Return every broken clause of a run."""
    found = []
    for number, adapter in enumerate(run.adapters):
        twins = sum(each.reference == adapter.reference for each in run.adapters[:number])
        for clause in broken(adapter):
            parts = (adapter.reference, adapter.name, adapter.device, str(twins), clause.id)
            name = hashlib.sha256("\0".join(map(printable, parts)).encode()).hexdigest()
            found.append(Finding(adapter, clause, place(adapter, clause), name))
    return found


def place(adapter: AdapterResult, clause: ClauseResult) -> Place:
    """Return the adapter's line of its file; without a file here the case, or the bare name."""
    file, _, attribute = adapter.reference.rpartition(":")
    if file.endswith(".py") and (inside := _inside(file)):
        return Place(inside, _line(Path(file), attribute))
    case = _inside(clause.case_file) if clause.case_file else None
    return Place(case or printable(adapter.reference or adapter.name))


def _inside(file: str) -> str | None:
    """Return a path relative to the working directory, or None where it lies elsewhere."""
    path = Path(file).absolute()
    here = path.is_relative_to(Path.cwd()) and ".." not in path.parts
    return printable(path.relative_to(Path.cwd()).as_posix()) if here else None


def _line(file: Path, attribute: str) -> int:
    """Return the line where ``file`` defines ``attribute``, or its first."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):  # it is gone or broken: the run says so itself
        return 1
    lines = [each.lineno for each in tree.body if attribute in _defines(each)]
    return lines[-1] if lines else 1


def _defines(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    if isinstance(node, ast.AnnAssign):
        return [node.target.id] if isinstance(node.target, ast.Name) else []
    targets = node.targets if isinstance(node, ast.Assign) else []
    return [each.id for each in targets if isinstance(each, ast.Name)]
