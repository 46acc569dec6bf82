"""Scope: whether a clause applies to an adapter at all, and to one of its cases; if not, why."""

from __future__ import annotations

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.cases.kinds import kind_of, trial_of
from moe_routing.conformance.checking.outcome import layout_of
from moe_routing.conformance.clauses import Clause
from moe_routing.implementations import Adapter, Capabilities


def adapter_scope(adapter: Adapter, clause: Clause, capabilities: Capabilities) -> str | None:
    """Return why the clause does not apply to the adapter, or None if it does."""
    if not hasattr(adapter, clause.method):
        return f"the adapter has no method {clause.method}"
    if not capabilities.claims:
        return "the adapter claims nothing"
    if not clause.narrowed(capabilities).claims:
        wanted = ", ".join(f"{k}={'/'.join(map(str, v))}" for k, v in clause.narrow.items())
        return f"nothing claimed has {wanted}"
    if not clause.needs(capabilities):
        return "the capabilities exclude the clause"
    if clause.layout is not None and _layout(adapter, clause, capabilities) != clause.layout:
        return f"the adapter does not return {clause.layout}"
    return None


def case_scope(adapter: Adapter, clause: Clause, case: AnyCase) -> str | None:
    """Return why the clause cannot be checked on one case of the adapter, or None if it can."""
    if not hasattr(adapter, clause.method):
        return f"the adapter has no method {clause.method}"
    capabilities = adapter.capabilities()
    if not clause.needs(capabilities):
        return "the capabilities exclude the clause"
    if not admits(clause, capabilities, case):
        return "the case is outside the adapter's claims"
    return None


def admits(clause: Clause, capabilities: Capabilities, case: AnyCase) -> bool:
    """Whether the clause is about ``case`` under these claims.

    Also a clause on what is not claimed keeps to the layouts that are: strides need no refusal.
    """
    if clause.beyond_claims:
        return not capabilities.layout_refusals(case.inputs)
    return kind_of(case).claimed(case, capabilities)


def _layout(adapter: Adapter, clause: Clause, capabilities: Capabilities) -> str | None:
    for event in clause.witnesses():
        case = event.constructed(capabilities)
        if case is not None:
            return layout_of(trial_of(adapter, case, clause.method))
    return None
