"""``moe-routing check``: check adapters against the specification."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from moe_routing.conformance.cli import configured, gating, last_failed, outputs
from moe_routing.conformance.cli.clashes import (
    Read,
    check_outputs,
    check_unmixed,
    over,
    over_baseline,
)
from moe_routing.conformance.cli.exit_codes import epilog
from moe_routing.conformance.cli.hints import hints
from moe_routing.conformance.cli.interrupts import stopped_like_interrupted
from moe_routing.conformance.cli.launch import is_another_rank
from moe_routing.conformance.cli.options import (
    CASES,
    Commands,
    UsageError,
    positive,
)
from moe_routing.conformance.cli.seats import add_options, add_ranks, files_of_command, seats

if TYPE_CHECKING:
    from moe_routing.conformance.checking.plan import Plan
    from moe_routing.conformance.run.session import Settings


def add(commands: Commands) -> None:
    """Add the parser of ``check``."""
    check = commands.add_parser(
        "check",
        help="check adapters",
        epilog=epilog("check"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument(
        "adapter",
        nargs="*",
        default=[],
        metavar="ADAPTER",
        help="a registered name or glob, package.module:attribute, path/to/file.py:attribute or "
        "process:command; default: adapters in [tool.moe-routing] of pyproject.toml",
    )
    gating.add_options(check)
    check.add_argument("--clause", action="append", default=[], metavar="GLOB")
    last_failed.add_option(check)
    check.add_argument(
        "--maxfail", type=positive, metavar="N", help="end the run after N red clauses"
    )
    check.add_argument(
        "-x", dest="maxfail", action="store_const", const=1, help="end it after the first one"
    )
    check.add_argument(
        "-q", "--quiet", action="store_true", help="show what is red, and the counts, alone"
    )
    check.add_argument(
        "--known",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="known divergences; default: those shipped with the adapters",
    )
    check.add_argument(
        "--jobs", type=positive, default=1, metavar="N", help="clauses to run at a time"
    )
    add_options(check)
    add_ranks(check)
    check.add_argument(
        "--cases", type=Path, default=CASES, metavar="DIR", help="where failing cases go"
    )
    outputs.add(check)
    check.set_defaults(run=run)
    configured.leave_open(check)


def run(arguments: argparse.Namespace) -> int:
    """Check the adapters and return the exit code."""
    from moe_routing.conformance.report.terminal import Terminal
    from moe_routing.conformance.run.session import check

    if is_another_rank(arguments):
        return 0
    if arguments.no_isolate and arguments.jobs > 1:
        raise UsageError("--jobs above 1 runs clauses in separate processes: remove --no-isolate")
    configured.fill(arguments)
    last_failed.narrow(arguments)
    plan = gating.plan(arguments)
    before = gating.baseline(arguments, plan)
    opened = seats(arguments.adapter, plan, arguments, jobs=arguments.jobs)
    files = _files(arguments, plan)
    terminal = Terminal(several=len(opened) > 1, quiet=arguments.quiet)
    terminal.open(list(opened), len(plan.clauses))
    with stopped_like_interrupted(), ExitStack() as stack:
        stack.callback(terminal.stop)
        result = check(
            opened,
            plan,
            _settings(arguments, plan),
            jobs=arguments.jobs,
            hints=hints,
            writers=[terminal],
        )
    written = outputs.write(result, files)  # first: a broken terminal must not cost them
    last_failed.record(result, arguments)
    terminal.close(result)
    clauses = {clause.id for clause in plan.clauses} if arguments.clause else None
    code = gating.exit_code(result, before, clauses)
    reported = outputs.report_to_github(result, arguments.github, red=code != 0)
    return code if written and reported else 2


def _settings(arguments: argparse.Namespace, plan: Plan) -> Settings:
    from moe_routing.conformance.run.session import Settings

    return Settings(
        profile=arguments.profile,
        min_cases=gating.min_cases(arguments, plan),
        cases=arguments.cases,
        examples=gating.examples(arguments),
        device=arguments.device,
        options=tuple(gating.again(arguments, plan)),
        most_red=arguments.maxfail,
    )


def _files(arguments: argparse.Namespace, plan: Plan) -> dict[str, Path]:
    """Return the reports to write, once they and the cases are known to be writable.

    Errors: ``OSError``; ``UsageError`` where a report would be written over another file.
    """
    from moe_routing.conformance.clauses import CLAUSES

    files, folders = outputs.paths(arguments), {"--cases": arguments.cases}
    check_unmixed(files, "--cases", arguments.cases, lambda path: path.stem in CLAUSES)
    if (kept := gating.examples(arguments)) is not None:
        folders["--examples"] = kept
        check_unmixed(files, "--examples", kept, lambda path: path.suffix == ".json")
    check_outputs(files, folders=folders, read=_read(arguments, plan))
    for option, folder in folders.items():
        outputs.check_folder(option, folder)
    outputs.make_room(files)
    return files


def _read(arguments: argparse.Namespace, plan: Plan) -> Read:
    """Yield the files that a run reads, with what they are."""
    from moe_routing.conformance.report.last_failed import FILE

    if arguments.baseline is not None:
        yield over_baseline(arguments.baseline)
    record = arguments.cases / FILE
    yield over(record, f"{record}, the record of what was red")
    for path in arguments.known:
        yield over(path, f"--known {path}, which is read")
    for path in arguments.configured.known:
        yield over(path, f"{path}, known in pyproject.toml, which is read")
    for each in plan.known:
        for path in each.witness_files:
            yield over(path, f"the witness {path} of {each.id}, which is read")
    for reference in arguments.adapter:
        for path in files_of_command(reference):
            yield over(path, f"{path}, of the adapter {reference}")
