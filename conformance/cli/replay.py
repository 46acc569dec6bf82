"""``moe-routing replay``: put one case file to adapters again."""

from __future__ import annotations

import argparse
from pathlib import Path

from moe_routing.conformance.cli.options import Commands, load


def add(commands: Commands) -> None:
    """Add the parser of ``replay``."""
    replay = commands.add_parser("replay", help="put one case file to adapters again")
    replay.add_argument("case", type=Path, metavar="CASE")
    replay.add_argument("adapter", nargs="*", metavar="ADAPTER", help="default: reference")
    replay.add_argument("--clause", help="default: the clause that the case file names")
    replay.add_argument("--device", default="cpu")
    replay.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Put the case to every adapter; 1 where any of them is wrong. Errors: ``CaseError``."""
    from moe_routing.conformance.case import CaseError, SharedCase, load_case
    from moe_routing.conformance.clause_run import evaluate, layout_of
    from moe_routing.conformance.clauses import select_clauses
    from moe_routing.conformance.trial import trial_of

    case, named = load_case(arguments.case)
    clauses = select_clauses([arguments.clause or named or "selection.valid-top-k"])
    broken = False
    for adapter in load(arguments.adapter or ["reference"], arguments.device).values():
        for clause in clauses:
            if isinstance(case, SharedCase) != (clause.method == "shared_experts"):
                raise CaseError(f"{clause.id} is not about the kind of case in {arguments.case}")
            trial = trial_of(adapter, case, clause.method)
            if clause.layout is not None and layout_of(trial) != clause.layout:
                print(f"unsupported  {adapter.name} {clause.id}: not its layout")
                continue
            outcome = evaluate(clause, trial)
            broken |= outcome.broken
            if not outcome.broken:
                print(f"pass  {adapter.name} {clause.id}")
                continue
            words = outcome.failure.summary if outcome.failure else outcome.error
            print(f"{'fail' if outcome.failure else 'error'}  {adapter.name} {clause.id}: {words}")
            for line in outcome.failure.details if outcome.failure else ():
                print(f"    {line}")
    return 1 if broken else 0
