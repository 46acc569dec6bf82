"""The audit of a model: one pass, every part of every block judged, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moe_routing.conformance.auditing import form, written
from moe_routing.conformance.auditing.finding import Finding
from moe_routing.conformance.auditing.outcome import Outcome
from moe_routing.conformance.auditing.verdicts import findings
from moe_routing.implementations.models.batches import batch_of
from moe_routing.implementations.models.passing import facts_of, passing


class Audit(Outcome):
    """What an audit found: ``right``, ``failures``, and the report, as ``str`` and ``json()``."""

    def __str__(self) -> str:
        """Return the report as text of at most 80 columns."""
        return written.text(self)

    def json(self) -> dict[str, Any]:
        """Return the report as plain values; shapes as in docs/auditing.md."""
        return form.form(self)


def audit(
    model: Any, batch: Any = None, *, tokens: int = 64, seed: int = 0, backward: bool = True
) -> Audit:
    """Judge every router and experts module of a model in place, on one forward and backward pass.

    ``batch`` is what ``model(**batch)`` takes; without one, ``tokens`` random token ids from
    ``seed``. The model's mode, its gradients and the random numbers are afterwards as before;
    inside, its dtype, device and experts implementation are its own. ``backward=False`` leaves
    gradients out. Errors: ``CannotAudit``, in one line; and whatever the model raises.
    """
    given = batch_of(model, batch, tokens=tokens, seed=seed)
    with passing(model, given, backward=backward) as done:
        found = [finding for seen in done.seen() for finding in findings(seen)]
    return Audit(model=facts_of(model), tokens=_most(found), findings=tuple(found))


def _most(found: Sequence[Finding]) -> int:
    return max((each.tokens for each in found), default=0)
