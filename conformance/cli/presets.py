"""``moe-routing presets``: list the routers of shipped models, or read a ``config.json``."""

from __future__ import annotations

import argparse
import fnmatch
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from moe_routing.conformance.cli.options import Commands, UsageError

if TYPE_CHECKING:
    from moe_routing.implementations import Claim
    from moe_routing.reference import Preset

_EPILOG = """\
a name goes into Claim.of_preset("deepseek_v3"), a config.json into Claim.of_config("config.json"),
and either into moe-routing new-adapter NAME --like.
"""


def add(commands: Commands) -> None:
    """Add the parser of ``presets``."""
    presets = commands.add_parser(
        "presets",
        help="list the routers of shipped models, or read a config.json",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    presets.add_argument(
        "preset", nargs="*", metavar="PRESET", help="names, such as 'glm*', or a config.json"
    )
    presets.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """List the presets that any glob matches. Errors: ``UsageError``, ``OSError``."""
    from moe_routing.conformance.report.plain import plain_console

    console = plain_console()
    for line in table(_chosen(arguments.preset), console.width):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0


def is_config(name: str) -> bool:
    """Return whether a word names a ``config.json``, or its folder, and no preset."""
    return name.endswith(".json") or "/" in name


def _chosen(words: Sequence[str]) -> dict[str, Preset]:
    """Return the presets that are named, by name, or every one."""
    from moe_routing.reference import PRESETS, preset, preset_of_config

    found: dict[str, Preset] = {}
    try:
        for word in words or ["*"]:
            if is_config(word):
                found[word] = preset_of_config(word)
            else:
                names = fnmatch.filter(PRESETS, word)
                found |= {name: preset(name) for name in names or [word]}
    except ValueError as error:
        raise UsageError(str(error)) from error
    return found


def table(found: Mapping[str, Preset], width: int) -> Iterator[str]:
    """Yield the table: presets that claim the same below the words of their claim."""
    from moe_routing.conformance.report.claim_words import claim_in_words
    from moe_routing.implementations import Claim

    alike: dict[str, list[str]] = {}
    for name in found:
        claim: Claim = (Claim.of_config if is_config(name) else Claim.of_preset)(name)
        alike.setdefault(claim_in_words(claim), []).append(name)
    cells = {name: _cells(name, each) for name, each in found.items()}
    heads = ("preset", "E", "K", "H", "groups", "scale", "checkpoint")
    widths = [max(map(len, column)) for column in zip(heads, *cells.values(), strict=True)]
    yield _row(heads, widths, width)
    for words, names in alike.items():
        yield from ("", *textwrap.wrap(words, width))
        yield from (_row(cells[name], widths, width) for name in names)


def _cells(name: str, model: Preset) -> tuple[str, ...]:
    config, groups = model.config, model.config.groups
    kept = f"{groups.kept} of {groups.count}" if groups else ""
    sizes = (str(config.num_experts), str(config.top_k), str(model.hidden_size))
    source = "" if model.source == name else model.source
    return (name, *sizes, kept, "" if config.scale == 1.0 else f"{config.scale:g}", source)


def _row(cells: Sequence[str], widths: Sequence[int], width: int) -> str:
    """Return a row, numbers to the right; the checkpoint takes what room there is."""
    name, *numbers, source = cells
    left = f"  {name:<{widths[0]}}"
    for cell, room in zip(numbers, widths[1:-1], strict=True):
        left += f"  {cell:>{room}}"
    room = width - len(left) - 2
    return f"{left}  {source if len(source) <= room else source[: room - 3] + '...'}".rstrip()
