"""Regions: which cases a known divergence covers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from divergences import case, divergence

from moe_routing.conformance.generators.shared import make_shared_case
from moe_routing.conformance.judge import Bounds
from moe_routing.implementations import Capabilities
from moe_routing.reference import Groups, Renormalize

SIGMOID = {"score": "sigmoid"}
GROUPED = {"groups": Groups(count=2, kept=1)}
REGIONS: list[Any] = [
    ({}, {}, True),
    ({"score": "sigmoid"}, SIGMOID, True),
    ({"score": "sigmoid"}, {}, False),
    ({"score": ["sigmoid", "softmax"]}, {}, True),
    ({"score": "sigmoid", "tokens": 2}, {**SIGMOID, "tokens": 1}, False),
    ({"tokens": [0, 1]}, {"tokens": 1}, True),
    ({"tokens": 0}, {"tokens": 0}, True),
    ({"tokens": ">1"}, {"tokens": 2}, True),
    ({"tokens": ">2"}, {"tokens": 2}, False),
    ({"tokens": [0, ">1"]}, {"tokens": 1}, False),
    ({"scale": ">0.5"}, {}, True),
    ({"groups.count": ">1"}, GROUPED, True),
    ({"groups.count": ">2"}, GROUPED, False),
    ({"groups.count": ">1"}, {}, False),
    ({"dtype": "bfloat16"}, {"dtype": "bfloat16"}, True),
    ({"dtype": "bfloat16"}, {}, False),
    ({"selection_bias": "none"}, {}, True),
    ({"selection_bias": "gate"}, {"bias": "gate"}, True),
    ({"selection_bias": ["block", "statics"]}, {"bias": "gate"}, False),
    ({"gate_delta": True}, {}, False),
    ({"groups": "absent"}, {}, True),
    ({"groups": "present"}, {}, False),
    ({"groups": "present"}, GROUPED, True),
    ({"groups.fill": "-inf"}, GROUPED, True),
    ({"groups.fill": 0.0}, GROUPED, False),
    ({"groups.fill": "-inf"}, {}, False),
    ({"renormalize.eps": 0.0}, {"renormalize": Renormalize()}, True),
    ({"renormalize.eps": 0}, {"renormalize": Renormalize(eps=1e-6)}, False),
    ({"events": ["one-token"]}, {"tokens": 1}, True),
    ({"events": ["one-token", "renormalized"]}, {"tokens": 1}, False),
    ({"events": "one-token"}, {"tokens": 1}, True),
    ({"logit_softcap": 30}, {"logit_softcap": 30.0}, True),
    ({"logit_softcap": "absent"}, {}, True),
    ({"logit_softcap": "present"}, {"logit_softcap": 30.0}, True),
    ({"logit_softcap": "absent"}, {"logit_softcap": 30.0}, False),
]


@pytest.mark.parametrize(("when", "parts", "covered"), REGIONS)
def test_a_region_covers_where_everything_in_when_holds(
    when: dict[str, Any], parts: dict[str, Any], covered: bool, tmp_path: Path
) -> None:
    known, other = divergence(tmp_path, when=when), case(**parts)
    bounds = Bounds(other.config, other.inputs, Capabilities().numerics)
    assert known.covers(bounds, other) == covered
    assert known.outlines(other) or not covered


def test_a_region_of_routing_calls_covers_no_shared_expert_call(tmp_path: Path) -> None:
    sizes = {"tokens": 2, "hidden": 4, "width": 2, "seed": 0}
    shared = make_shared_case(kind="plural", gated=False, dtype="float32", **sizes)
    assert not divergence(tmp_path).covers(None, shared)
    about = {"clause": "shared-experts.plural", "when": {"kind": "plural"}}
    known = divergence(tmp_path, witness=shared, **about)
    assert known.covers(None, shared)
    assert not known.covers(None, case())
