"""What several commands share: arguments of the same kind, and complaints."""

from __future__ import annotations

import argparse
import difflib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What a command's ``add`` is given."""

CASES = Path("moe-routing-cases")
"""Where failing cases are written unless ``--cases`` says otherwise."""


DISTRIBUTION = "moe-routing-conformance"
"""The distribution that this package is installed as."""


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong; ``--help`` says what would be right."""

    def error(self, message: str) -> NoReturn:
        """End the command with exit code 2."""
        end = "" if message.endswith("?") else ";"
        complain(f"{message}{end} {self.prog} --help lists what there is")
        sys.exit(2)

    def unknown(self, words: Sequence[str]) -> NoReturn:
        """End the command for words that it does not take, with the option that may be meant."""
        options = [each for each in self._option_string_actions if each.startswith("--")]
        said = next((each for each in words if each.startswith("-")), words[0])
        near = difflib.get_close_matches(said.partition("=")[0], options, n=1)
        hint = f": did you mean {near[0]}?" if near else ""
        self.error(f"unrecognized arguments: {shlex.join(words)}{hint}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a value that is no choice, in the words of ours for every version of Python."""
        if action.choices is None or value in action.choices:
            return
        from moe_routing.reference.checks import shown  # with numpy, which help has no use for

        names = [str(each) for each in action.choices]
        near = difflib.get_close_matches(str(value), names, n=1)
        hint = f": did you mean {near[0]}?" if near else ""
        words = f"{shown(value)} is none of {', '.join(names)}"
        raise argparse.ArgumentError(action, f"{words}{hint}")


class Version(argparse.Action):
    """Prints the versions of this package and of the specification, and ends."""

    def __call__(self, parser: argparse.ArgumentParser, *parts: object) -> NoReturn:
        """Print them; what they are read from is imported here."""
        from importlib.metadata import PackageNotFoundError, version

        from moe_routing.reference import SPEC_VERSION

        try:
            installed = version(DISTRIBUTION)
        except PackageNotFoundError:
            installed = "not installed"
        print(f"moe-routing {installed}, specification {SPEC_VERSION}")
        sys.exit(0)


class UsageError(Exception):
    """Options that do not go together; the message names them and the fix."""


def positive(text: str) -> int:
    """Read an integer of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {text}")
    return int(text)


def complain(message: str) -> None:
    """Print one line on stderr: why something could not run."""
    print(f"moe-routing: {' '.join(message.split())}", file=sys.stderr)
