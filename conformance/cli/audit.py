"""``moe-routing audit``: does a whole model route right, where it stands?"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from moe_routing.conformance.cli import gating, outputs
from moe_routing.conformance.cli.clashes import check_outputs
from moe_routing.conformance.cli.exit_codes import epilog
from moe_routing.conformance.cli.options import Commands, complain, positive

if TYPE_CHECKING:
    from moe_routing.conformance.auditing.auditing import Audit


def add(commands: Commands) -> None:
    """Add the parser of ``audit``."""
    audit = commands.add_parser(
        "audit",
        help="judge the routers and experts of a model in place",
        description="Run a model forward and backward once, and judge every router and experts\n"
        "module of it on what it was given, and what it answered.",
        epilog=epilog("audit"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    audit.add_argument("model", type=Path, metavar="MODEL", help="a folder with a config.json")
    audit.add_argument(
        "--shrink",
        action="store_true",
        help="make a small random model instead: fewer layers, narrower, the same experts, K and "
        "routing",
    )
    audit.add_argument(
        "--tokens", type=positive, default=64, metavar="N", help="random token ids; default: 64"
    )
    audit.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    audit.add_argument("--dtype", choices=gating.DTYPES, help="default: the model's own")
    audit.add_argument("--device", default="cpu", metavar="DEVICE", help="default: cpu")
    audit.add_argument("--experts-implementation", metavar="NAME", help="default: the model's own")
    audit.add_argument("--forward-only", action="store_true", help="leave the gradients out")
    audit.add_argument("--json", type=Path, metavar="FILE", help="write what was found")
    audit.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Audit the model and return the exit code. Errors: ``CannotAudit``, ``OSError``."""
    from moe_routing.implementations.models.opening import Wishes, open_model

    files = {"--json": arguments.json} if arguments.json else {}
    check_outputs(files, folders={}, read=[])
    outputs.make_room(files)
    wishes = Wishes(
        shrink=arguments.shrink,
        seed=arguments.seed,
        dtype=arguments.dtype,
        device=arguments.device,
        experts_implementation=arguments.experts_implementation,
    )
    model, words = open_model(arguments.model, wishes)
    return _shown(_audited(model, arguments), words, files)


def _audited(model: object, arguments: argparse.Namespace) -> Audit:
    from moe_routing.conformance.auditing.auditing import audit

    return audit(
        model,
        tokens=arguments.tokens,
        seed=arguments.seed,
        backward=not arguments.forward_only,
    )


def _shown(found: Audit, words: str, files: dict[str, Path]) -> int:
    from moe_routing.conformance.auditing import form, written
    from moe_routing.conformance.report.plain import plain_console

    texts = {each: (path, partial(form.json_text, found)) for each, path in files.items()}
    whole = outputs.write_texts(texts)  # first: a broken terminal must not cost it
    if not found.findings:
        complain(f"{found.model}: no MoE block in it, so that there is nothing to audit")
        return 2
    console = plain_console()
    for line in written.lines(found, console.width, words):
        console.print(line)
    return found.exit_code if whole else 2
