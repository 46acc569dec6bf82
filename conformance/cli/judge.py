"""``moe-routing judge``: is what a run recorded of its routing right, and do two runs agree?"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from moe_routing.conformance.cli import outputs
from moe_routing.conformance.cli.clashes import check_outputs, over
from moe_routing.conformance.cli.exit_codes import epilog
from moe_routing.conformance.cli.options import Commands, UsageError

if TYPE_CHECKING:
    from moe_routing.conformance.traces.judged import Judged
    from moe_routing.conformance.traces.known_router import Known
    from moe_routing.conformance.traces.walk import Found, Plan

_DTYPES = ("float32", "bfloat16", "float16")


def add(commands: Commands) -> None:
    """Add the parser of ``judge``."""
    judge = commands.add_parser(
        "judge",
        help="judge routing recorded from a run",
        description="Judge routing that was recorded from a run, token by token: what is right,\n"
        "what rounding explains, what nothing does; and whether two records agree.",
        epilog=epilog("judge"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    judge.add_argument(
        "trace",
        nargs="+",
        type=Path,
        metavar="TRACE",
        help="safetensors, npz, npy, responses of an engine as json or jsonl, or a folder",
    )
    judge.add_argument(
        "--against", action="append", default=[], type=Path, metavar="B", help="another record"
    )
    router = judge.add_mutually_exclusive_group()
    router.add_argument("--preset", metavar="NAME", help="the router: one of the presets")
    router.add_argument(
        "--config", type=Path, metavar="FILE", help="the router: a model's config.json, or a claim"
    )
    judge.add_argument(
        "--dtype", choices=_DTYPES, help="of the hidden states; default: what the record shows"
    )
    judge.add_argument(
        "--declare",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="coarser arithmetic, as adapters declare it: sigmoid=absolute",
    )
    judge.add_argument(
        "--replayed", action="store_true", help="TRACE's experts were forced, not chosen"
    )
    judge.add_argument(
        "--may-differ",
        type=share,
        default=0.0,
        metavar="SHARE",
        help="so many tokens may differ unexplained: 2%%; default: none",
    )
    judge.add_argument(
        "--ray", action="store_true", help="over Ray: the cluster of RAY_ADDRESS, or one made here"
    )
    judge.add_argument("--json", type=Path, metavar="FILE", help="write what was found")
    judge.set_defaults(run=run)


def share(text: str) -> float:
    """Read a share such as ``2%`` or ``0.02``. Errors: ``argparse.ArgumentTypeError``."""
    try:
        value = float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text} is no share: write 2% or 0.02")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Judge the trace and return the exit code. Errors: ``TraceError``, ``UsageError``."""
    from moe_routing.conformance.report.plain import plain_console
    from moe_routing.conformance.traces.judged import Judged
    from moe_routing.conformance.traces.planning import plan_of

    files, known = _files(arguments), _known(arguments)
    if arguments.replayed and known.config is None:
        raise UsageError("--replayed judges weights: name the router, with --preset or --config")
    began = time.monotonic()
    with plain_console().status("reading the headers") as status:
        plan = plan_of(
            arguments.trace,
            arguments.against,
            known,
            dtype=arguments.dtype,
            replayed=arguments.replayed,
        )

        def progress(done: int) -> None:
            status.update(f"judging: {done} of {plan.tokens} tokens")

        found = _found(plan, arguments.ray, progress)
    judged = Judged(plan=plan, known=known, found=found, may_differ=arguments.may_differ)
    return _shown(judged, files, time.monotonic() - began)


def _known(arguments: argparse.Namespace) -> Known:
    from moe_routing.conformance.traces import known_router

    known = known_router.NOBODY
    if arguments.preset:
        known = known_router.of_preset(arguments.preset)
    elif arguments.config:
        known = known_router.of_file(arguments.config)
    return replace(known, numerics=known_router.declared(arguments.declare))


def _found(plan: Plan, ray: bool, progress: Callable[[int], None]) -> Found:
    from moe_routing.conformance.traces.over_ray import walk_over_ray
    from moe_routing.conformance.traces.walk import walk

    return walk_over_ray(plan, progress) if ray else walk(plan, progress)


def _files(arguments: argparse.Namespace) -> dict[str, Path]:
    """Return the files to write, once they are known to be writable. Errors: as of ``check``."""
    files = {"--json": arguments.json} if arguments.json else {}
    read = [over(path, f"{path}, which is read") for path in arguments.trace + arguments.against]
    check_outputs(files, folders={}, read=read)
    outputs.make_room(files)
    return files


def _shown(judged: Judged, files: dict[str, Path], seconds: float) -> int:
    from moe_routing.conformance.report.plain import plain_console
    from moe_routing.conformance.traces import form, written

    texts = {each: (path, partial(form.json_text, judged)) for each, path in files.items()}
    whole = outputs.write_texts(texts)  # first: a broken terminal must not cost them
    console = plain_console()
    for line in written.lines(judged, console.width):
        console.print(line)
    console.print(f"in {seconds:.1f} s")
    return judged.exit_code if whole else 2
