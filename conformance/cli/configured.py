"""What ``check`` takes from ``[tool.moe-routing]`` where the command line does not say."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from moe_routing.conformance.checking.profiles import DEFAULT
from moe_routing.conformance.cli.options import Parser, UsageError

if TYPE_CHECKING:
    from moe_routing.conformance.checking.configuration import Configuration

DEVICE = "cpu"
"""The device of a run for which none is named."""


def leave_open(parser: argparse.ArgumentParser) -> None:
    """Let the parser keep apart what the command line says from what is the default."""
    parser.set_defaults(profile=None, device=None)


def fill(arguments: argparse.Namespace) -> None:
    """Set what the command line left open. Errors: ``UsageError``, ``OSError``."""
    from moe_routing.conformance.checking.configuration import ConfigurationError, configuration

    try:
        found = configuration(Path.cwd())
    except ConfigurationError as error:
        raise UsageError(str(error)) from error
    arguments.configured = found
    arguments.adapter = arguments.adapter or list(found.adapters)
    if not arguments.adapter:
        parser: Parser = arguments.parser
        parser.error("name an ADAPTER, or adapters in [tool.moe-routing] of pyproject.toml")
    arguments.profile = arguments.profile or found.profile or DEFAULT
    arguments.device = arguments.device or found.device or DEVICE
    if arguments.seed is None:
        arguments.seed = found.seed


def again(arguments: argparse.Namespace, seed: int) -> list[str]:
    """Return the options that set profile, seed and device again, where those are the defaults.

    The command that repeats a clause is run where the same table is read.
    """
    found: Configuration = arguments.configured
    same_profile = arguments.profile == (found.profile or DEFAULT)
    to_cpu = arguments.device == DEVICE and (found.device or DEVICE) != DEVICE
    return [
        *([] if same_profile else [f"--profile={arguments.profile}"]),
        *([] if seed == (found.seed or 0) else [f"--seed={seed}"]),
        *([f"--device={DEVICE}"] if to_cpu else []),
    ]
