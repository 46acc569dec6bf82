"""The words that all writers share: clean text, the story of a broken clause, how to repeat it."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence

from moe_routing.conformance.checking.edges import words_of
from moe_routing.conformance.checking.results import AdapterResult, ClauseResult, RunResult
from moe_routing.conformance.checking.status import STATUSES
from moe_routing.conformance.clauses import rules_of
from moe_routing.conformance.clauses.rules import rule_lines
from moe_routing.conformance.report.plain import printable
from moe_routing.reference.checks import counted

METHODS = {
    "route": "routing",
    "dispatch": "dispatch",
    "shared_experts": "shared experts",
    "permute": "permutation",
    "gradients": "gradients",
    "experts": "experts",
    "expert_gradients": "experts' gradients",
    "replay": "replay",
    "shard": "shards",
    "drop": "capacity",
    "route_padded": "padding",
    "balance": "balance",
    "layer": "layers",
    "on_ranks": "ranks",
    "gradients_on_ranks": "ranks' gradients",
}
"""What the clauses of a method are about."""


def broken(adapter: AdapterResult) -> list[ClauseResult]:
    """Return the clauses that turn the run red, in the order of the specification."""
    return [each for each in adapter.clauses if not each.green]


def ran(adapter: AdapterResult, clause: ClauseResult) -> bool:
    """Return whether a clause was run, rather than given the error of its adapter."""
    return not adapter.unloaded or clause.message != adapter.unloaded


def answered(adapter: AdapterResult) -> bool:
    """Return whether anything was learnt of an adapter before it could not run, if ever."""
    checked = (each for each in adapter.clauses if each.status != "unsupported")
    return not adapter.unloaded or any(ran(adapter, each) for each in checked)


def by_clause(run: RunResult) -> dict[str, list[ClauseResult | None]]:
    """Return a row for each clause: its result on every adapter, or None where it was not run."""
    rows: dict[str, list[ClauseResult | None]] = {}
    for number, adapter in enumerate(run.adapters):
        for clause in adapter.clauses:
            rows.setdefault(clause.id, [None] * len(run.adapters))[number] = clause
    return rows


def counts(adapter: AdapterResult, *, reason: bool = True) -> str:
    """Return the counts of an adapter in one line, or that nothing was checked.

    ``reason``: with why it could not run, which the terminal prints on stderr instead.
    """
    summary, run = adapter.summary(), len(adapter.clauses)
    why = f": {adapter.unloaded}" if reason else ""
    if not answered(adapter):
        return f"could not run{why}"
    if not run:
        lacks = ", ".join(f"no method {name}" for name in adapter.untried)
        return f"nothing was checked{': the adapter has ' * bool(lacks)}{lacks}"
    if not summary["applicable"]:
        (most, _), *_ = Counter(each.message for each in adapter.clauses).most_common(1)
        if run == 1:
            return f"nothing was checked: the one clause is unsupported: {most}"
        return f"nothing was checked: all {run} clauses are unsupported; most often, {most}"
    found = Counter(each.status for each in adapter.clauses)
    words = ", ".join(f"{found[s]} {row.counted}" for s, row in STATUSES.items() if found[s])
    score = f"score {summary['passed']}/{summary['in_spec']}"
    apply = "clause applies" if run == 1 else "clauses apply"
    tally = f"{words}; {summary['applicable']} of {run} {apply}, {score}"
    return f"{tally}; could not go on{why}" if adapter.unloaded else tally


def prose(text: str) -> list[str]:
    """Split our prose at backticks: the code between them has the odd places."""
    return re.split(r"`([^`]+)`", text)


def likenesses(run: RunResult) -> list[tuple[str, str]]:
    """Return the adapters that behave like a known bug, by name, with the hint in prose."""
    return [(printable(each.name), printable(h)) for each in run.adapters for h in each.hints]


def notes(run: RunResult) -> list[str]:
    """Return notes on the run as a whole, a line each."""
    again = f"seed {run.seed}: repeat this run with --profile nightly --seed {run.seed}"
    past = [f"{printable(each.name)}: {line}" for each in run.adapters for line in past_edges(each)]
    words = [words for _, words in _too_few(run) + _whole(run)]
    return [*past, *untried(run), *[again] * (run.profile == "nightly"), *words]


_NAMED = 4
"""How many lacking methods a line names at the most; the JSON report has all of them."""


def untried(run: RunResult) -> list[str]:
    """Return, a line for those that lack the same methods, which clauses were not tried for it."""
    lacking: dict[tuple[tuple[str, int], ...], list[AdapterResult]] = {}
    for each in run.adapters:
        lacking.setdefault(tuple(each.untried.items()), []).append(each)
    return [
        f"{_have(adapters)} {_without(dict(methods))} skipped"
        for methods, adapters in lacking.items()
        if methods
    ]


def _have(adapters: Sequence[AdapterResult]) -> str:
    several = len(adapters) > 1
    return f"{len(adapters)} adapters have" if several else f"{printable(adapters[0].name)} has"


def _without(methods: Mapping[str, int]) -> str:
    """Return which methods are missing, and how many clauses of what call them."""
    if len(methods) == 1:
        ((method, number),) = methods.items()
        return f"no method {method}: {counted(number, 'clause')} of {METHODS[method]}"
    names, skipped = list(methods), counted(sum(methods.values()), "clause")
    if len(names) > _NAMED:
        return f"none of {len(names)} methods ({', '.join(names[: _NAMED - 1])}, ...): {skipped}"
    return f"none of the methods {', '.join(names)}: {skipped}"


def past_edges(adapter: AdapterResult) -> list[str]:
    """Return, a line for each edge, how many clauses were checked past it, and where it is red."""
    return words_of(adapter.clauses)


Complaint = tuple[AdapterResult | None, str]
"""What is wrong besides broken clauses, in a line, and with which adapter, if with one."""


def complaints(run: RunResult) -> list[Complaint]:
    """Return what turns the run red besides its broken clauses."""
    idle = [each for each in run.adapters if each.unloaded or (each.ok and not each.checked)]
    found: list[Complaint] = [(each, printable(f"{each.name}: {counts(each)}")) for each in idle]
    return found + [each for each in _too_few(run) if each[0] not in idle] + _whole(run)


def _too_few(run: RunResult) -> list[Complaint]:
    words = f"fewer than the floor of {run.min_cases}"
    return [
        (each, printable(f"{each.name}: {counted(each.cases, 'case')} run, {words}"))
        for each in run.too_few
        if not each.unloaded  # which is a complaint of its own
    ]


def _whole(run: RunResult) -> list[Complaint]:
    if run.partial:
        return [(None, f"{run.ended}: this run is partial, so there is no verdict")]
    return [] if run.adapters else [(None, "nothing was checked")]


def headline(adapter: AdapterResult) -> str:
    """Return an adapter's name, with what it wraps and what it declares."""
    wraps = f" ({adapter.package} {adapter.version})" if adapter.package else ""
    declared = f"  declares {', '.join(adapter.numerics)}" if adapter.numerics else ""
    return printable(f"{adapter.name}{wraps}{declared}")


def reproduce(adapter: AdapterResult, clause: ClauseResult) -> str:
    """Return the command that repeats a broken clause: its case alone, if it has one."""
    device = [] if adapter.device == "cpu" else [f"--device={adapter.device}"]
    if clause.case_file is not None:
        kept = ("--repeat=", "--ranks=")
        repeated = [option for option in adapter.options if option.startswith(kept)]
        words = ["replay", clause.case_file, adapter.reference, *device, *repeated]
    else:
        words = ["check", adapter.reference, f"--clause={clause.id}", *device, *adapter.options]
    return printable(shlex.join(["moe-routing", *words]))


def story_lines(adapter: AdapterResult, clause: ClauseResult) -> list[str]:
    """Return a broken clause line by line: the story, the rules at stake, how to repeat it."""
    lines = [clause.message]
    if clause.failure is not None:
        lines.append(f"went wrong at: {clause.failure.stage}")
    rules = rule_lines(rules_of(clause.id)) if ran(adapter, clause) else []
    lines += [f"  {line}" for line in (*clause.story, *rules)]
    lines = [printable(line) for line in (*lines, *clause.unwritten)]
    return [*lines, f"Reproduce with: {reproduce(adapter, clause)}"]


def verdict(run: RunResult) -> str:
    """Return in a few words how the run ended."""
    if run.partial:
        return f"{run.ended}: a partial run has no verdict"
    if unloaded := sum(bool(adapter.unloaded) for adapter in run.adapters):
        return f"{unloaded} of {counted(len(run.adapters), 'adapter')} could not run"
    red = sum(len(broken(adapter)) for adapter in run.adapters)
    if red:
        return f"{red} broken clause{'s' if red > 1 else ''}"
    if run.too_few:
        return f"fewer than {counted(run.min_cases, 'case')} run"
    return "nothing was checked" if run.exit_code else "every clause that applies holds"
