"""The options of ``check`` that make it a gate: profile, seed, budget, floor, baseline."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe_routing.conformance.checking.profiles import DEFAULT, PROFILES
from moe_routing.conformance.cli import configured
from moe_routing.conformance.cli.options import UsageError, complain, positive
from moe_routing.conformance.cli.seats import amount
from moe_routing.conformance.trial.repeats import REPEATS

if TYPE_CHECKING:
    from moe_routing.conformance.checking.plan import Plan
    from moe_routing.conformance.checking.results import RunResult
    from moe_routing.conformance.clauses import Clause
    from moe_routing.conformance.known.divergence import Divergence

DTYPES = ("float32", "bfloat16", "float16")
"""The dtypes of inputs, as the reference has them."""

REPEAT_HELP = f"calls made again where a clause repeats a call; default: {REPEATS}"

_SEEDS = 2**32


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--profile", choices=PROFILES, default=DEFAULT)
    parser.add_argument("--dtype", choices=DTYPES, help="inputs of this dtype alone")
    parser.add_argument("--max-examples", type=positive, metavar="N", help="cases drawn per clause")
    parser.add_argument("--repeat", type=positive, metavar="N", help=REPEAT_HELP)
    parser.add_argument(
        "--seed", type=int, metavar="N", help="default: 0; for nightly, a new one every run"
    )
    parser.add_argument(
        "--budget",
        type=amount,
        metavar="SECONDS",
        help="time limit on drawing cases, over all clauses; nightly only",
    )
    parser.add_argument(
        "--examples",
        type=Path,
        metavar="DIR",
        help=f"failing cases to run first and to add to; default: none; for nightly "
        f"{PROFILES['nightly'].examples}",
    )
    parser.add_argument(
        "--min-cases",
        type=whole,
        metavar="N",
        help="the floor: an adapter that ran fewer cases is red; default: as many as a clause "
        "draws, or none with --clause",
    )
    parser.add_argument(
        "--baseline",
        type=Path,
        metavar="REPORT",
        help="fail only where this run is worse than that report",
    )


def whole(text: str) -> int:
    """Read an integer of 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be 0 or more, not {text}")
    return int(text)


def plan(arguments: argparse.Namespace) -> Plan:
    """Return the plan of the options. Errors: ``UsageError`` and those of the files read."""
    from moe_routing.conformance.cases.kept import load_examples
    from moe_routing.conformance.checking.plan import Plan
    from moe_routing.conformance.clauses import select_clauses

    if PROFILES[arguments.profile].huge:
        _require_memory(arguments.device)
    clauses = select_clauses(arguments.clause or PROFILES[arguments.profile].clauses)
    if getattr(arguments, "ranks", None):
        clauses = _of_ranks(clauses)
    folder = examples(arguments)
    return Plan(
        clauses=clauses,
        max_examples=arguments.max_examples or PROFILES[arguments.profile].max_examples,
        seed=_seed(arguments),
        known=_known(arguments),
        kept=load_examples(folder) if folder else {},
        seconds=_seconds(arguments, len(clauses)),
        dtype=arguments.dtype,
        repeats=arguments.repeat or PROFILES[arguments.profile].repeats,
        series=PROFILES[arguments.profile].series,
        bulk=arguments.device != "cpu" or PROFILES[arguments.profile].explores,
        huge=PROFILES[arguments.profile].huge,
        shrinks=not PROFILES[arguments.profile].huge,
    )


def _require_memory(device: str) -> None:
    """Raise ``UsageError`` where this machine cannot hold what a huge call takes of it."""
    from moe_routing.conformance.run.huge import lacking

    if words := lacking(device):
        raise UsageError(f"--profile huge {words}")


def _known(arguments: argparse.Namespace) -> list[Divergence]:
    """Return the given divergences, or else the shipped ones and those of the table."""
    from moe_routing.conformance.known.divergence import check_ids, known_divergences

    found = known_divergences(arguments.known, arguments.device)
    if arguments.known or not arguments.configured.known:
        return found
    both = [*known_divergences(arguments.configured.known, arguments.device), *found]
    check_ids(both)
    return both


def _of_ranks(clauses: Sequence[Clause]) -> list[Clause]:
    """Return the clauses about ranks that run at once. Errors: ``UsageError`` for none."""
    from moe_routing.implementations.protocol import ON_RANKS

    found = [each for each in clauses if each.method in ON_RANKS]
    if not found:
        raise UsageError(
            "--ranks checks the clauses about ranks alone, and --clause names none of them: "
            "use --clause shards.on-ranks, or leave it out"
        )
    return found


def again(arguments: argparse.Namespace, plan: Plan) -> list[str]:
    """Return the options that draw the same cases again, defaults left out."""
    known = [f"--known={file}" for file in arguments.known]
    profile_and_seed = configured.again(arguments, plan.seed)
    drawn = [f"--max-examples={arguments.max_examples}"] if arguments.max_examples else []
    dtype = [f"--dtype={arguments.dtype}"] if arguments.dtype else []
    usual = PROFILES[arguments.profile].repeats
    repeats = [f"--repeat={plan.repeats}"] if plan.repeats != usual else []
    ranks = [f"--ranks={arguments.ranks}"] if getattr(arguments, "ranks", None) else []
    return [*known, *profile_and_seed, *drawn, *dtype, *repeats, *ranks]


def examples(arguments: argparse.Namespace) -> Path | None:
    """Return the folder of kept cases, if the run has one."""
    given: Path | None = arguments.examples
    return given or PROFILES[arguments.profile].examples


def min_cases(arguments: argparse.Namespace, plan: Plan) -> int:
    """Return the floor: the option, or what a run of all clauses always reaches."""
    given: int | None = arguments.min_cases
    if given is not None:
        return given
    named = arguments.clause or getattr(arguments, "ranks", None)
    named = named or PROFILES[arguments.profile].clauses
    return 0 if named else plan.max_examples


def _seed(arguments: argparse.Namespace) -> int:
    given: int | None = arguments.seed
    if given is not None:
        return given
    return secrets.randbelow(_SEEDS) if PROFILES[arguments.profile].explores else 0


def _seconds(arguments: argparse.Namespace, clauses: int) -> float | None:
    budget: float | None = arguments.budget
    if budget is None:
        return None
    if not PROFILES[arguments.profile].explores:
        raise UsageError(
            f"--budget makes a run depend on the clock, which {arguments.profile} must not: "
            "use --profile nightly, or --max-examples"
        )
    from moe_routing.implementations import expand

    adapters = sum(len(expand(each, device=arguments.device)) for each in arguments.adapter)
    jobs: int = arguments.jobs
    return budget * jobs / (clauses * adapters)


def baseline(arguments: argparse.Namespace, plan: Plan) -> dict[str, Any] | None:
    """Read the baseline, if there is one.

    Errors: ``ReportError``, also where this run cannot be compared with it.
    """
    from moe_routing.conformance.report.diff import check_alike, load_report

    if arguments.baseline is None:
        return None
    before = load_report(arguments.baseline)
    check_alike(before, {"profile": arguments.profile, "max_examples": plan.max_examples})
    return before


def exit_code(result: RunResult, before: dict[str, Any] | None, clauses: set[str] | None) -> int:
    """Return the run's exit code; with a baseline, say and count only what is worse."""
    from moe_routing.conformance.report.diff import compare
    from moe_routing.conformance.report.report import report

    for each in result.adapters:
        if each.unloaded:
            named = len(result.adapters) == 1 or each.name in each.unloaded
            complain(each.unloaded if named else f"{each.name}: {each.unloaded}")
    if before is None or result.exit_code == 2:
        return result.exit_code
    difference = compare(before, report(result), clauses=clauses)
    print("against the baseline")
    for line in difference.lines():
        print(f"  {line}")
    return 1 if difference.red or result.too_few else 0
