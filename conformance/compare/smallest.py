"""The smallest case of a cause: made smaller while it lasts, explained, and written to a file."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.cases.files import case_folder, save_case
from moe_routing.conformance.cases.kinds import all_defined, facts_of, kind_of
from moe_routing.conformance.cases.whole import reason
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.compare.cases import claimed
from moe_routing.conformance.compare.routers import CLAUSE_OF, Router
from moe_routing.conformance.compare.routes import Cause, Routes, disputed, routes_of
from moe_routing.conformance.explain.numbers import listed, show, span
from moe_routing.conformance.explain.story import call
from moe_routing.conformance.generators.reducer import reduce_case
from moe_routing.implementations import Capabilities

BUDGET = {"crash": 16, "timeout": 0}
"""The most cases that are given to the routers to make one smaller, where each costs a process."""

USUAL = 200
"""The same, of every other cause."""

SHOWN = 6
"""The disputed experts that are shown of a token, at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """The smallest case of a cause: ``title`` says what it shows, ``lines`` how.

    ``router`` is the letter of the one that is wrong, None of a difference that is explained.
    """

    router: str | None
    cause: str
    clause: str
    title: str
    lines: tuple[str, ...]
    case: Case
    case_file: str | None
    reproduce: str


def smallest_example(
    routers: Sequence[Router], cause: Cause, case: Case, folder: Path, device: str
) -> Example:
    """Make a case smaller while its cause lasts, explain it, and write it to ``folder``.

    ``routers`` are those that the cause is about: the one that is wrong, or those that differ.
    """
    case = _reduced(routers, cause, case)
    wrong = next((each for each in routers if each.letter == cause[0]), None)
    if wrong:
        clause, title, lines = _of_wrong(wrong, cause[1], case)
    else:
        clause, title, lines = _of_difference(routes_of(case, routers), cause[1])
    path = folder / f"{_slug(wrong, cause[1])}.json"
    unwritten = _unwritten(case, path, clause)
    named = [each.reference for each in routers]
    options = [] if device == "cpu" else [f"--device={device}"]
    return Example(
        router=wrong.letter if wrong else None,
        cause=cause[1],
        clause=clause,
        title=title,
        lines=(*lines, *unwritten),
        case=case,
        case_file=None if unwritten else str(path),
        reproduce=shlex.join(["moe-routing", "replay", str(path), *named, *options]),
    )


def _reduced(routers: Sequence[Router], cause: Cause, case: Case) -> Case:
    """Return the smallest case found that all routers claim, and that has the same cause."""
    everyone = [each.capabilities for each in routers]

    def lasts(smaller: Case) -> bool:
        return claimed(smaller, everyone) and cause in routes_of(smaller, routers).causes()

    def defined(smaller: Case) -> bool:
        facts = facts_of(smaller, Capabilities())
        return claimed(smaller, everyone) and all_defined(smaller, facts)

    budget = BUDGET.get(cause[1], USUAL)
    return reduce_case(case, kind_of(case).reductions, lasts, preferred=defined, budget=budget)


def folder_name(routers: Sequence[Router]) -> str:
    """Return the folder of the cases of a comparison, within that of all cases."""
    return "compare-" + "-".join(case_folder(each.about.name) for each in routers)[:100]


def _slug(wrong: Router | None, cause: str) -> str:
    if wrong is None:
        return f"differ-by-{cause}"
    return f"wrong-{wrong.letter}-{case_folder(wrong.about.name)}"


def _unwritten(case: Case, path: Path, clause: str) -> tuple[str, ...]:
    """Write the case; return a line on why it could not be, or nothing where it was."""
    try:
        save_case(case, path, clause=clause)
    except OSError as error:
        return (f"the case could not be written to {path}: {reason(error)}",)
    return ()


def _of_wrong(router: Router, stage: str, case: Case) -> tuple[str, str, tuple[str, ...]]:
    """Return a clause that the wrong answer breaks, what is wrong, and the story."""
    first = CLAUSE_OF[stage]
    for clause in dict.fromkeys((first, *CLAUSE_OF.values())):
        replayed = router.seat.replay(CLAUSES[clause], case)
        if replayed.broken:
            return clause, replayed.message, replayed.details
    return first, f"wrong at {stage}, but right when the same call was repeated", ()


def _of_difference(routes: Routes, cause: str) -> tuple[str, str, tuple[str, ...]]:
    """Return the title and the lines of the first token that differs by a cause."""
    tokens = np.flatnonzero(getattr(routes, cause))
    if not len(tokens):
        return CLAUSE_OF["selection"], f"differed by {cause}, but not when it was repeated", ()
    token = int(tokens[0])
    lines = [f"token {token} of {call(routes.case.config, routes.case.inputs)}"]
    found = np.flatnonzero(disputed(routes)[token])
    for router, verdict in zip(routes.routers, routes.verdicts, strict=True):
        if verdict is not None:
            ids = [int(each) for each in verdict.answer.expert_ids[token]]
            if len(ids) > SHOWN:  # what they agree on would hide the rest
                ids = [each for each in ids if each in found]
            only = " of those in dispute" if len(ids) < routes.case.config.top_k else ""
            lines.append(f"  {router.letter} {router.name} chose {listed(ids)}{only}")
    words = _tied if cause == "ties" else _near
    lines += [f"  {words(routes, token, int(expert))}" for expert in found[:SHOWN]]
    if len(found) > SHOWN:
        lines.append(f"  and {len(found) - SHOWN} more experts")
    return CLAUSE_OF["selection"], f"differs by {cause}; every answer is right", tuple(lines)


def _tied(routes: Routes, token: int, expert: int) -> str:
    """Return what an expert competes with in the exact reference, and its group, if any."""
    reference, groups = routes.bounds.reference, routes.case.config.groups
    words = f"expert {expert} competes with {show(reference.competing[token, expert])} exactly"
    if groups is None or reference.group_scores is None:
        return words
    group = expert * groups.count // routes.case.config.num_experts
    return f"{words}, group {group} with {show(reference.group_scores[token, group])}"


def _near(routes: Routes, token: int, expert: int) -> str:
    """Return the exact logit of an expert, and what rounding lets it compete with."""
    bounds = routes.bounds
    competing = bounds.from_reference.competing
    ends = float(competing.lo[token, expert]), float(competing.hi[token, expert])
    logit = show(bounds.reference.logits[token, expert])
    return f"expert {expert}: logit {logit}, competes in {span(ends)}"
