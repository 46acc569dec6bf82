"""A backend in another process that differentiates its router, and replies of another form."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance import Plan, select_clauses
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.implementations import BackendLost, ProcessAdapter
from moe_routing.reference import RouterConfig, RouterInputs

SPEAKER = """
import json, math, sys

def array(shape, values, dtype="float64"):
    return {"dtype": dtype, "shape": shape, "values": values}

for line in sys.stdin:
    asked = json.loads(line)
    if asked["request"] == "hello":
        claims = [{"score": ["sigmoid"], "top_k": [1]}]
        capabilities = {"claims": claims, "dtypes": ["float32"], "takes": "logits",
                        "gradients": {"of": ["logits"]}}
        reply = {"hello": {"protocol": 1, "name": "sigmoid", "methods": ["gradients"],
                           "capabilities": capabilities}}
    else:
        (tokens, experts), z = (asked["inputs"]["logits"][k] for k in ("shape", "values"))
        z, g = [float(x) for x in z], asked["cotangent"]["values"]
        weights, ids, back = [], [], [0.0] * len(z)
        for t in range(tokens):
            row = z[t * experts:][:experts]
            e = max(range(experts), key=lambda e: (row[e] if row[e] == row[e] else -math.inf, -e))
            s = 1 / (1 + math.exp(-row[e])) if row[e] > -700 else 0.0
            weights, ids = weights + [s if row[e] == row[e] else "nan"], ids + [e]
            back[t * experts + e] = FACTOR * g[t * experts + e] * s * (1 - s)
        reply = {"routing": {"weights": array([tokens, 1], weights),
                             "expert_ids": array([tokens, 1], ids, "int64")},
                 "gradients": {"logits": array([tokens, experts], back)}}
        BREAK
    print(json.dumps({"id": asked["id"], **reply}), flush=True)
"""


def speaker(folder: Path, factor: str = "1", wrong: str = "pass") -> Any:
    path = folder / "sigmoid.py"
    path.write_text(SPEAKER.replace("FACTOR", factor).replace("BREAK", wrong))
    return ProcessAdapter([sys.executable, str(path)])


@pytest.mark.parametrize(("factor", "status"), [("1", "pass"), ("0.5", "fail")])
def test_it_is_held_to_the_clauses_of_gradients(factor: str, status: str, tmp_path: Path) -> None:
    adapter = speaker(tmp_path, factor)
    (clause,) = select_clauses(["gradients.saturated"])
    result = check_clause(adapter, clause, Plan(clauses=[clause], max_examples=5))
    assert result.status == status, result.message
    assert result.failure is None or "half of it" in "\n".join(result.failure.details)
    adapter.close()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ('del reply["gradients"]', "sent gradients=None; expected a JSON object"),
        ('reply["gradients"]["gate"] = 3', r"sent unknown keys \['gate'\] in gradients"),
        ('reply = {"gradients": {}}', "expected one of routing"),
    ],
)
def test_a_reply_of_another_form_is_told(wrong: str, words: str, tmp_path: Path) -> None:
    adapter, inputs = speaker(tmp_path, wrong=wrong), RouterInputs.from_logits(np.eye(2))
    config = RouterConfig(num_experts=2, top_k=1, score="sigmoid")
    with pytest.raises(BackendLost, match=words):
        adapter.gradients(config, inputs, np.ones((2, 2), np.float32))


EXPERTS = """
import json, sys

def array(given, values):
    return {"dtype": "float64", "shape": given["shape"], "values": values}

for line in sys.stdin:
    asked = json.loads(line)
    if asked["request"] == "hello":
        computes = {"activations": ["relu"], "gated": [False], "biases": [False], "absent": [False],
                    "weight_on": ["output"], "gradients": ["weights"]}
        reply = {"hello": {"protocol": 1, "name": "relu", "methods": ["expert_gradients"],
                           "capabilities": {"computes": computes, "dtypes": ["float32"]}}}
    else:
        inputs = asked["inputs"]
        (tokens, size), x = (inputs["hidden"][k] for k in ("shape", "values"))
        (_, width, _), up = (inputs["up_weight"][k] for k in ("shape", "values"))
        down, g = inputs["down_weight"]["values"], asked["cotangent"]["values"]
        ids, back = inputs["expert_ids"]["values"], []
        slots = inputs["expert_ids"]["shape"][1]
        for route, e in enumerate(ids):
            t = route // slots
            inner = [max(0.0, sum(up[(e * width + f) * size + h] * x[t * size + h]
                                  for h in range(size))) for f in range(width)]
            back.append(FACTOR * sum(g[t * size + h] * down[(e * size + h) * width + f] * inner[f]
                                     for h in range(size) for f in range(width)))
        reply = {"expert_gradients": {"weights": array(inputs["weights"], back)}}
    print(json.dumps({"id": asked["id"], **reply}), flush=True)
"""


@pytest.mark.parametrize(("factor", "status"), [("1", "pass"), ("-1", "fail")])
def test_experts_are_held_to_their_gradients(factor: str, status: str, tmp_path: Path) -> None:
    path = tmp_path / "relu.py"
    path.write_text(EXPERTS.replace("FACTOR", factor))
    adapter = ProcessAdapter([sys.executable, str(path)])
    (clause,) = select_clauses(["experts.gradients-exact"])
    result = check_clause(adapter, clause, Plan(clauses=[clause], max_examples=5))
    assert result.status == status, result.message
    assert result.failure is None or "the sign" in "\n".join(result.failure.details)
    adapter.close()
