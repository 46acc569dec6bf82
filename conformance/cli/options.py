"""What several commands share: the exit codes in words, and arguments of the same kind."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

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


class UsageError(Exception):
    """Options that do not go together; the message says which, and the mend."""


def positive(text: str) -> int:
    """Read an integer of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {text}")
    return int(text)


def complain(message: str) -> None:
    """Say in one line on stderr why something could not run."""
    print(f"moe-routing: {' '.join(message.split())}", file=sys.stderr)
