"""What several commands share: the exit codes in words, and arguments of the same kind."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moe_routing.implementations import Adapter

Commands = argparse._SubParsersAction
"""What a command's ``add`` is given."""

CASES = Path("moe-routing-cases")
"""Where failing cases are written unless ``--cases`` says otherwise."""

EXIT_CODES = """\
exit codes:
  0  every applicable clause is pass or known
  1  any clause is fail, error, crash, timeout, fixed or inconclusive
  2  it could not run: usage, unknown adapter or clause, import failure
"""


def positive(text: str) -> int:
    """Read an integer of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {text}")
    return int(text)


def load(references: Sequence[str], device: str) -> dict[str, Adapter]:
    """Load adapters, by the references that name them. Errors: ``AdapterError``."""
    from moe_routing.implementations import load_adapter

    return {reference: load_adapter(reference, device=device) for reference in references}
