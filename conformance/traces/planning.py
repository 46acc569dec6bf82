"""Planning: traces opened and looked at, layers paired, misplaced ones found."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from moe_routing.conformance.traces.errors import TraceError
from moe_routing.conformance.traces.known_router import Known
from moe_routing.conformance.traces.pieces import Files
from moe_routing.conformance.traces.places import Place, chosen_by_logits, places, recorded
from moe_routing.conformance.traces.sampling import numbers_in_words
from moe_routing.conformance.traces.survey import Surveyed, config_of, survey
from moe_routing.conformance.traces.trace import Trace, open_trace
from moe_routing.conformance.traces.walk import Plan


def plan_of(
    given: Sequence[Path],
    against: Sequence[Path],
    known: Known,
    *,
    dtype: str | None = None,
    replayed: bool = False,
) -> Plan:
    """Open one trace or two, and plan how they are judged. Errors: ``TraceError``, ``OSError``."""
    files = Files()
    try:
        first, second = open_trace(given, known), open_trace(against, known) if against else None
        config = config_of(known, [first, second] if second else [first])
        look = partial(survey, known=known, config=config, files=files, dtype=dtype)
        one = look("A", first, forced=replayed)
        if second is None:
            return Plan(traces=(one,), own={"A": _own(one, files)})
        other = look("B", second, forced=False)
        pairs = _paired(one.trace, other.trace)
        own = {each.letter: _own(each, files) for each in (one, other)}
        return Plan(
            traces=(one, other), own=own, pairs=_misplaced(one, other, pairs, files), paired=pairs
        )
    finally:
        files.close()


def _paired(one: Trace, other: Trace) -> dict[int, int]:
    """Return which layer of A each of B should equal: that of its number, or of its rank."""
    if len(one.layers) != len(other.layers):
        raise TraceError(
            f"A has {len(one.layers)} layers, {_words(one)}, and B {len(other.layers)}, "
            f"{_words(other)}: record the same layers in both"
        )
    if one.tokens != other.tokens:
        raise TraceError(
            f"A has {one.tokens} tokens and B {other.tokens}: both must be about the same; an "
            "engine has no row for the last token that it sampled"
        )
    return {b.number: a.number for a, b in zip(one.layers, other.layers, strict=True)}


def _words(trace: Trace) -> str:
    return numbers_in_words([each.number for each in trace.layers])


def _own(of: Surveyed, files: Files) -> dict[int, Place]:
    """Return where a trace's layers are found among its own logits, of those misplaced."""
    if not all(each.chooses for each in of.routers.values()):
        return {}
    layers = [each.number for each in of.trace.layers if "expert_ids" in each.fields]
    same = {each.number: each.number for each in of.trace.layers}
    ours, theirs = recorded(of, files), chosen_by_logits(of, files)
    return places(layers, same, of.trace.tokens, ours, theirs)


def _misplaced(
    one: Surveyed, other: Surveyed, pairs: dict[int, int], files: Files
) -> dict[int, Place]:
    ours, theirs = recorded(other, files), recorded(one, files)
    return places(pairs, pairs, other.trace.tokens, ours, theirs)
