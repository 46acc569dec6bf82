"""``moe-routing completion``: the script that completes this command in a shell, made by shtab.

It completes commands, options, files, clause ids, and the adapters registered when it is made.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from moe_routing.conformance.cli.options import DISTRIBUTION, Commands, UsageError

SHELLS = ("bash", "zsh", "fish")
"""The shells that scripts are made for."""

_INSTALL = f"python -m pip install '{DISTRIBUTION}[completion]'"

_WORDS_AND_FILES = {
    "bash": '{name}() {{ compgen -W {words} -- "$1"; compgen -f -- "$1"; }}',
    "zsh": "{name}() {{ compadd -- {each}; _files }}",
    "fish": "function {name}; printf '%s\\n' {each}; __fish_complete_path (commandline -ct); end",
}
"""A function, by shell, that completes some words and files besides."""


def add(commands: Commands) -> None:
    """Add the parser of ``completion``."""
    completion = commands.add_parser("completion", help="print what completes commands in a shell")
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the script. Errors: ``UsageError`` where shtab is not installed."""
    try:
        import shtab
    except ImportError as error:
        raise UsageError(f"completion needs shtab, which is not installed: {_INSTALL}") from error
    parser: argparse.ArgumentParser = arguments.whole
    marks = _marks(arguments.shell, shtab)
    for action in _actions(parser):
        _mark(action, marks, shtab)
    print(shtab.complete(parser, arguments.shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the options and arguments of all commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _actions(each)
        else:
            yield action


def _marks(shell: str, shtab: Any) -> dict[str, dict[str, Any]]:
    """Return what completes an argument, by the word that stands for it in ``--help``."""
    from moe_routing.conformance.clauses import CLAUSES
    from moe_routing.implementations.registry import FAMILIES, registered

    adapters = [*registered(), *FAMILIES]
    if shell == "bash":  # which takes a colon for the end of a word
        adapters = [each for each in adapters if ":" not in each]
    by_adapter = _words_and_files("_moe_routing_adapters", adapters)
    return {
        "ADAPTER": by_adapter,
        "CASE|CLAUSE": _words_and_files("_moe_routing_clauses", CLAUSES),
        "DIR": shtab.DIRECTORY,
    }


def _words_and_files(name: str, words: Iterable[str]) -> dict[str, Any]:
    each = " ".join(shlex.quote(word) for word in dict.fromkeys(words))
    parts = {"name": name, "words": shlex.quote(each), "each": each}
    made = {shell: text.format(**parts) for shell, text in _WORDS_AND_FILES.items()}
    called = {"bash": name, "zsh": name, "fish": f"({name})"}
    return {**called, "preamble": made}


def _mark(action: argparse.Action, marks: dict[str, dict[str, Any]], shtab: Any) -> None:
    """Say how an argument is completed, where its choices do not."""
    from moe_routing.conformance.clauses import CLAUSES

    names = action.metavar if isinstance(action.metavar, str) else ""
    if names == "ADAPTER":
        action.help = "an adapter"  # shells show it with each
    if names in marks:
        action.complete = marks[names]  # type: ignore[attr-defined]
    elif names == "GLOB" and action.dest in ("clause", "glob"):
        action.choices = list(CLAUSES)
    elif action.type is Path:
        action.complete = shtab.FILE  # type: ignore[attr-defined]
