"""Traces judged in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moe_routing.conformance.traces.judged import Judged
from moe_routing.conformance.traces.known_router import Known
from moe_routing.conformance.traces.planning import plan_of
from moe_routing.conformance.traces.walk import walk


def judged(
    trace: list[Path], known: Known, against: list[Path] | None = None, **options: Any
) -> Judged:
    plan = plan_of(trace, against or [], known, **options)
    return Judged(plan=plan, known=known, found=walk(plan))
