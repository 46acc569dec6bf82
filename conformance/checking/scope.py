"""Scope: whether a clause applies to an adapter at all, and to one of its cases; if not, why."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import islice

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.cases.kinds import kind_of, trial_of
from moe_routing.conformance.checking.outcome import layout_of, parts_of
from moe_routing.conformance.checking.search import draw_cases
from moe_routing.conformance.clauses import Clause
from moe_routing.conformance.events.stock import STOCK
from moe_routing.conformance.trial.base import AnyTrial
from moe_routing.implementations import Adapter, Capabilities
from moe_routing.implementations.protocol import METHODS, offers

ROWS_OF_THEIR_OWN = ("dispatch", "shared_experts")
"""The methods whose clauses a router without them is shown as ``unsupported``, each in a row."""


def untried_methods(adapter: Adapter) -> tuple[str, ...]:
    """Return the methods that the adapter lacks and whose clauses are skipped.

    They are other protocols than its own: one line says so, not a row a clause.
    """
    lacks = tuple(name for name in METHODS if not offers(adapter, name))
    if "route" in lacks:
        return lacks
    return tuple(name for name in lacks if name not in ROWS_OF_THEIR_OWN)


def clauses_for(
    clauses: Iterable[Clause], untried: Container[str], capabilities: Capabilities
) -> list[Clause]:
    """Return the clauses that an adapter is held to.

    Those of methods that it lacks are left out, and so are those of promises that it does not
    make; where nothing else is asked for, these stay, to say that they do not apply.
    """
    tried = [each for each in clauses if each.method not in untried]
    return [each for each in tried if _made(each, capabilities)] or tried


def _made(clause: Clause, capabilities: Capabilities) -> bool:
    """Return whether a clause is on no promise, or on one that is made."""
    return clause.promise is None or clause.needs(capabilities) is None


PROBES = 32
"""The drawn calls, at most, that a backend is given to see whether it answers in a layout."""


def adapter_scope(
    adapter: Adapter,
    clause: Clause,
    capabilities: Capabilities,
    is_known: Callable[[AnyTrial], bool] = lambda trial: False,
) -> str | None:
    """Return why the clause does not apply to the adapter, or None if it does.

    Calls that a known divergence covers, as ``is_known`` says of their trials, are not made.
    """
    if not offers(adapter, clause.method):
        return f"the adapter has no method {clause.method}"
    if not capabilities.claims:
        return "the adapter claims nothing"
    narrowed = clause.narrowed(capabilities)
    if not narrowed.claims:
        return f"nothing claimed has {_narrow(clause)}{_taken(clause, capabilities)}"
    if (reason := clause.needs(capabilities)) is not None:
        return reason
    probed = partial(_any_answer, adapter, clause, narrowed, is_known)
    if clause.layout is not None and not probed(lambda trial: layout_of(trial) == clause.layout):
        return f"the adapter does not return {clause.layout}"
    if clause.part is not None and not probed(lambda trial: clause.part in parts_of(trial)):
        return f"the answers have no {clause.part}"
    return None


def case_scope(adapter: Adapter, clause: Clause, case: AnyCase) -> str | None:
    """Return why the clause cannot be checked on one case of the adapter, or None if it can."""
    if not offers(adapter, clause.method):
        return f"the adapter has no method {clause.method}"
    capabilities = adapter.capabilities()
    if (reason := clause.needs(capabilities)) is not None:
        return reason
    if not admits(clause, capabilities, case):
        return f"the case is outside the adapter's claims{_lacking(case, capabilities)}"
    if not admits(clause, clause.narrowed(capabilities), case):
        return f"the clause is about {_narrow(clause)}, which the case has not"
    return None


def admits(clause: Clause, capabilities: Capabilities, case: AnyCase) -> bool:
    """Whether the clause is about ``case`` under these claims.

    Also a clause on what is not claimed keeps to the layouts that are: strides need no refusal.
    """
    if clause.beyond_claims:
        return not capabilities.layout_refusals(case.inputs)
    return kind_of(case).claimed(case, capabilities)


def _lacking(case: AnyCase, capabilities: Capabilities) -> str:
    """Return what of a case is not claimed, if its kind knows."""
    lacking = kind_of(case).refusals(case, capabilities)
    return f": {', '.join(lacking)}" if lacking else ""


def _narrow(clause: Clause) -> str:
    """Return the axes that a clause is about, with their values."""
    return ", ".join(f"{axis}={'/'.join(map(str, v))}" for axis, v in clause.narrow.items())


def _taken(clause: Clause, capabilities: Capabilities) -> str:
    """Return what of the backend's input excludes the norm that a clause is about, in words."""
    normed = "input_norm" in clause.narrow and capabilities.takes == "logits"
    return " with takes='logits'" if normed else ""


def _any_answer(
    adapter: Adapter,
    clause: Clause,
    narrowed: Capabilities,
    is_known: Callable[[AnyTrial], bool],
    fits: Callable[[AnyTrial], bool],
) -> bool:
    """Whether any of several calls is answered in the layout, or with the part, that fits.

    A backend may answer each call in another layout, by its size or by its configuration.
    """
    trials = (
        trial_of(adapter, case, clause.method)
        for case in _probes(_Key(clause.id, repr(narrowed), clause, narrowed))
    )
    return any(fits(trial) for trial in trials if not is_known(trial))


@dataclass(frozen=True)
class _Key:
    """What probes are drawn for; claims that read alike are the same."""

    id: str
    claims: str
    clause: Clause = field(compare=False)
    narrowed: Capabilities = field(compare=False)


@lru_cache(maxsize=16)
def _probes(key: _Key) -> tuple[AnyCase, ...]:
    """Return the cases constructed for the clause's events, and some drawn ones."""
    found: list[AnyCase] = []
    for event in key.clause.witnesses():
        found += [each.case for each in islice(STOCK.checked(event, key.narrowed), 1)]

    def collected(case: AnyCase) -> bool:
        found.append(case)
        return False

    draw_cases(key.clause, key.narrowed, suite_seed=0, max_examples=PROBES, enough=collected)
    return tuple(found)
