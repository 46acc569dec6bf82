"""Whether a clause applies to an adapter at all, and if not, why."""

from __future__ import annotations

from moe_routing.conformance.checking.outcome import layout_of
from moe_routing.conformance.clauses import Clause
from moe_routing.conformance.trial.trial import trial_of
from moe_routing.implementations import Adapter, Capabilities


def why_unsupported(adapter: Adapter, clause: Clause, capabilities: Capabilities) -> str | None:
    """Return why nothing can be asked of the adapter, or None where something can."""
    if not hasattr(adapter, clause.method):
        return f"the adapter has no method {clause.method}"
    if not capabilities.claims:
        return "the adapter claims nothing"
    if not clause.narrowed(capabilities).claims:
        wanted = ", ".join(f"{k}={'/'.join(map(str, v))}" for k, v in clause.narrow.items())
        return f"nothing claimed has {wanted}"
    if not clause.needs(capabilities):
        return "the capabilities exclude it"
    if clause.layout is not None and _layout(adapter, clause, capabilities) != clause.layout:
        return f"answers are not in the layout {clause.layout}"
    return None


def _layout(adapter: Adapter, clause: Clause, capabilities: Capabilities) -> str | None:
    for event in clause.witnesses():
        case = event.constructed(capabilities)
        if case is not None:
            return layout_of(trial_of(adapter, case, clause.method))
    return None
