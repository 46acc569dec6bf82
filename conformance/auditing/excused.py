"""Failures that a known divergence explains: those that ship with the suite, by adapter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from moe_routing.conformance.auditing.finding import Finding
from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.known.divergence import known_divergences


def excused(finding: Finding, adapter: str, device: str, facts: Any, case: AnyCase) -> Finding:
    """Return a failure as known where a divergence of ``adapter`` covers the call."""
    if finding.status != "fail":
        return finding
    for each in known_divergences([], device):
        if each.touches(adapter, finding.clause) and each.covers(facts, case):
            note = f"known divergence {each.id}: {each.reason} ({each.link})"
            return replace(finding, status="known", notes=(*finding.notes, note))
    return finding
