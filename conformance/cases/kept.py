"""The examples: failing cases of earlier runs, saved as files and run first in later ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.cases.files import case_to_json, load_case

Examples = dict[str, tuple[AnyCase, ...]]
"""Saved cases by the clauses that they broke."""


def load_examples(folder: Path) -> Examples:
    """Read the saved cases of every clause, in the order of their names.

    A folder that is not there holds none. Errors: ``CaseError``.
    """
    kept: Examples = {}
    for path in sorted(folder.glob("*/*.json")):
        kept[path.parent.name] = (*kept.get(path.parent.name, ()), load_case(path)[0])
    return kept


def example_path(folder: Path, clause: str, case: AnyCase) -> Path:
    """Return where a failing case is saved for later runs: the same path each time it is found."""
    text = json.dumps(case_to_json(case, clause=clause, compact=True), sort_keys=True)
    return folder / clause / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
