"""``moe-routing compare``: do routers route alike, and what explains where they do not?"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from moe_routing.conformance.checking.profiles import PROFILES, SMALL
from moe_routing.conformance.cli import gating, outputs
from moe_routing.conformance.cli.clashes import check_outputs, over
from moe_routing.conformance.cli.exit_codes import epilog
from moe_routing.conformance.cli.interrupts import stopped_like_interrupted
from moe_routing.conformance.cli.options import CASES, Commands, UsageError, positive
from moe_routing.conformance.cli.seats import add_options, files_of_command, seats

if TYPE_CHECKING:
    from moe_routing.conformance.checking.plan import Plan
    from moe_routing.conformance.compare.comparing import Comparison
    from moe_routing.conformance.compare.routers import Router
    from moe_routing.conformance.known.divergence import Divergence
    from moe_routing.implementations import Capabilities

_PROFILE = "smoke"
"""The profile of a comparison that names none: what is constructed is most of what is compared."""

_LEAST = 3
"""The cases that a comparison draws a clause, where its profile draws fewer."""

_FILES = {"json": "write the counts and the cases", "markdown": "write the tables as Markdown"}


def add(commands: Commands) -> None:
    """Add the parser of ``compare``."""
    compare = commands.add_parser(
        "compare",
        help="compare the routes of adapters",
        description="Give the same cases to several adapters, and say what explains each "
        "difference: rounding, a tie, or that one of them is wrong.",
        epilog=epilog("compare"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.add_argument("adapter", nargs="+", metavar="ADAPTER", help="as of check; two or more")
    compare.add_argument("--profile", choices=SMALL, default=_PROFILE, help=f"default: {_PROFILE}")
    compare.add_argument("--dtype", choices=gating.DTYPES, help="inputs of this dtype alone")
    compare.add_argument("--clause", action="append", default=[], metavar="GLOB")
    compare.add_argument(
        "--max-examples", type=positive, metavar="N", help="cases drawn per clause"
    )
    compare.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    compare.add_argument(
        "--known",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="known divergences; default: those shipped with the adapters",
    )
    add_options(compare)
    compare.add_argument(
        "--cases", type=Path, default=CASES, metavar="DIR", help="where the smallest cases go"
    )
    for kind, words in _FILES.items():
        compare.add_argument(f"--{kind}", type=Path, metavar="FILE", help=words)
    compare.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare the adapters and return the exit code. Errors: ``CannotRun``, ``UsageError``."""
    from moe_routing.conformance.compare import routers as routers_

    plan, files = _plan(arguments), _files(arguments)
    opened = seats(arguments.adapter, plan, arguments)
    _check_several(arguments, list(opened))
    known = {each: _known(each, plan) for each in opened}
    with stopped_like_interrupted():
        routers = routers_.open_routers(opened, known)
        try:
            comparison = _compared(routers, plan, arguments)
        finally:
            routers_.close(routers)
    return _shown(comparison, files)


def _plan(arguments: argparse.Namespace) -> Plan:
    from moe_routing.conformance.checking.plan import Plan
    from moe_routing.conformance.clauses import select_clauses
    from moe_routing.conformance.known.divergence import known_divergences

    profile = PROFILES[arguments.profile]
    return Plan(
        clauses=select_clauses(arguments.clause or profile.clauses),
        max_examples=arguments.max_examples or max(profile.max_examples, _LEAST),
        seed=arguments.seed,
        known=known_divergences(arguments.known, arguments.device),
        dtype=arguments.dtype,
        bulk=arguments.device != "cpu" or profile.explores,
    )


def _known(reference: str, plan: Plan) -> list[Divergence]:
    from moe_routing.implementations import is_shipped

    return list((plan if is_shipped(reference) else plan.unshipped()).known)


def _check_several(arguments: argparse.Namespace, opened: list[str]) -> None:
    """Raise ``UsageError`` unless there are two adapters or more."""
    if len(opened) > 1:
        return
    given = " ".join(arguments.adapter)
    raise UsageError(f"compare takes two different adapters or more, not {given}: name another")


def _files(arguments: argparse.Namespace) -> dict[str, Path]:
    """Return the files to write, once they are known to be writable. Errors: as of ``check``."""
    named = {f"--{kind}": getattr(arguments, kind) for kind in _FILES}
    files = {option: path for option, path in named.items() if path is not None}
    read = [over(path, f"--known {path}, which is read") for path in arguments.known]
    for reference in arguments.adapter:
        role = f"of the adapter {reference}"
        read += [over(path, f"{path}, {role}") for path in files_of_command(reference)]
    check_outputs(files, folders={"--cases": arguments.cases}, read=read)
    outputs.check_folder("--cases", arguments.cases)
    outputs.make_room(files)
    return files


def _compared(routers: list[Router], plan: Plan, arguments: argparse.Namespace) -> Comparison:
    from moe_routing.conformance.compare.comparing import compare
    from moe_routing.conformance.report.plain import plain_console

    common = _common(routers, arguments.dtype)
    with plain_console().status("comparing") as status:

        def progress(part: str, cases: int) -> None:
            status.update(f"comparing on cases of {part}: {cases} so far")

        return compare(
            routers,
            common,
            plan,
            profile=arguments.profile,
            device=arguments.device,
            folder=arguments.cases,
            progress=progress,
        )


def _common(routers: list[Router], dtype: str | None) -> Capabilities:
    """Return what the routers claim alike, of one dtype if it is named. Errors: ``UsageError``."""
    from moe_routing.implementations import NothingInCommon, in_common

    try:
        common = in_common({each.name: each.capabilities for each in routers})
    except NothingInCommon as error:
        raise UsageError(f"Cannot compare: {error}") from error
    if dtype is None:
        return common
    if dtype not in common.dtypes:
        claimed = ", ".join(common.dtypes)
        raise UsageError(f"Cannot compare with --dtype {dtype}: all of them claim only {claimed}")
    return replace(common, dtypes=(dtype,))


def _shown(comparison: Comparison, files: dict[str, Path]) -> int:
    from moe_routing.conformance.compare import form, written
    from moe_routing.conformance.report.plain import plain_console

    makers: dict[str, Callable[[Comparison], str]] = {
        "--json": form.json_text,
        "--markdown": written.markdown,
    }
    texts = {each: (path, partial(makers[each], comparison)) for each, path in files.items()}
    whole = outputs.write_texts(texts)  # first: a broken terminal must not cost them
    console = plain_console()
    for line in written.lines(comparison, console.width):
        console.print(line)
    return comparison.exit_code if whole else 2
