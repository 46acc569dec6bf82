"""What was judged as JSON; its schema is docs/trace.schema.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from moe_routing.conformance.run.environment import environment, suite_version
from moe_routing.conformance.traces.agreement import CAUSES
from moe_routing.conformance.traces.judged import OTHERS, UNPLACED, WRONG, Judged
from moe_routing.conformance.traces.places import Place
from moe_routing.conformance.traces.survey import Surveyed
from moe_routing.conformance.traces.tally import BUCKETS, LISTED, Example, Tally
from moe_routing.reference import SPEC_VERSION
from moe_routing.reference.jsonform import config_to_json

SCHEMA = 1
"""The version of the form."""


def json_text(judged: Judged) -> str:
    """Return what was judged as JSON."""
    return json.dumps(form(judged), indent=1) + "\n"


def form(judged: Judged) -> dict[str, Any]:
    """Return what was judged as plain values: the same whoever computed it."""
    plan = judged.plan
    config = judged.known.config
    return {
        "schema": SCHEMA,
        "kind": "trace",
        "suite_version": suite_version(),
        "spec_version": SPEC_VERSION,
        "environment": environment(),
        "exit_code": judged.exit_code,
        "router": {
            "name": judged.known.name,
            "config": None if config is None else config_to_json(config),
            "numerics": judged.known.numerics.declared(),
        },
        "tokens": plan.tokens,
        "traces": [_trace(judged, each) for each in plan.traces],
        "agreement": None if len(plan.traces) == 1 else _agreement(judged),
    }


def _trace(judged: Judged, of: Surveyed) -> dict[str, Any]:
    first = next(iter(of.routers.values()))
    tally = judged.found.of[of.letter]
    places = judged.plan.own.get(of.letter, {})
    return {
        "trace": of.letter,
        "name": of.trace.name,
        "replayed": first.forced,
        "dtypes": list(first.dtypes),
        "recorded": {
            "logits": None if first.logits is None else first.logits.name,
            "weights": None if first.weights is None else first.weights.name,
        },
        "notes": list(of.notes),
        "unread": list(of.trace.unread),
        "misplaced": [_place(layer, layer, place) for layer, place in places.items()],
        **_tally(tally, (*OTHERS, *WRONG, *UNPLACED), (*WRONG, "undefined")),
    }


def _agreement(judged: Judged) -> dict[str, Any]:
    plan = judged.plan
    return {
        "differ": judged.differ,
        "unexplained": judged.unexplained,
        "may_differ": judged.may_differ,
        "misplaced": [
            _place(layer, plan.paired[layer], place) for layer, place in plan.pairs.items()
        ],
        **_tally(judged.found.agreement, ("alike", *CAUSES, *UNPLACED), CAUSES),
    }


def _place(layer: int, expected: int, place: Place) -> dict[str, Any]:
    return {"layer": layer, "expected": expected, "found": place.layer, "shift": place.shift}


def _tally(tally: Tally, counted: Sequence[str], shown: Sequence[str]) -> dict[str, Any]:
    return {
        "total": {each: tally.total([each]) for each in counted},
        "layers": [
            {"layer": layer, **{each: tally.of_layer(layer, [each]) for each in counted}}
            for layer in sorted(tally.counts)
        ],
        "positions": {
            each: [tally.positions[each][bucket] for bucket in range(BUCKETS)]
            for each in shown
            if each in tally.positions
        },
        "listed": {
            each: [list(pair) for pair in sorted(tally.listed[each])]
            for each in shown
            if each in tally.listed
        },
        "left_out": {
            each: tally.total([each]) - LISTED for each in shown if tally.total([each]) > LISTED
        },
        "first": {each: _example(tally.first[each]) for each in shown if each in tally.first},
        "smallest": {
            each: _example(tally.smallest[each]) for each in shown if each in tally.smallest
        },
    }


def _example(example: Example) -> dict[str, Any]:
    missed = example.missed
    return {
        "layer": example.layer,
        "token": example.token,
        "missed": missed if missed < float("inf") else None,
        "details": list(example.lines),
    }
