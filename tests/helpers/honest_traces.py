"""Honest traces, of which nothing may be called wrong: recorded from routers that are right.

    python tests/helpers/honest_traces.py [CASES]

is the campaign: cases of the whole specification, answered by torch and by the zoo's honest
routers, recorded in every dtype, judged from the record alone. It prints what was called wrong.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from judged_traces import judged

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.generators.strategies import routing_cases, steady_examples
from moe_routing.conformance.traces.block_data import of_hidden_states
from moe_routing.conformance.traces.blocks import STATES, WRONG, Evidence, judge_block
from moe_routing.conformance.traces.known_router import Known
from moe_routing.conformance.traces.precision import precision_of
from moe_routing.conformance.traces.router import Router
from moe_routing.conformance.traces.survey import input_dtypes
from moe_routing.conformance.trial.boundary import Received, receive
from moe_routing.conformance.zoo.residents import HONEST
from moe_routing.implementations import Numerics, load_adapter
from moe_routing.reference.formats import FORMATS

Array = npt.NDArray[Any]

RECORDS = ("float32", "bfloat16", "float16")
"""The dtypes that logits and weights are recorded in."""


def honest_routers() -> Iterator[Any]:
    """Yield routers that are right, and declare nothing."""
    yield load_adapter("torch")
    for each in HONEST.values():
        made = each.adapter()
        claims = made.capabilities()
        if hasattr(made, "route") and claims.numerics == Numerics() and claims.logits == "routed":
            yield made


def cases(count: int, name: str = "honest traces") -> Iterator[Case]:
    """Yield calls of the whole specification that choose by scores."""
    for case in steady_examples(routing_cases(), name, count):
        if case.inputs.expert_table is None and case.inputs.num_tokens:
            yield case


def recorded(values: Array, dtype: str) -> Array | None:
    """Return numbers as a record of ``dtype`` holds them, None where it does not hold them."""
    held = FORMATS[dtype].round(values).astype(np.float32)
    overflows = np.isinf(held) & np.isfinite(values)
    return None if overflows.any() else held


def states(case: Case, answer: Received, logits_as: str, weights_as: str) -> Counter[str]:
    """Judge a record of an answer, and count its tokens by what is found of them."""
    assert answer.answer.logits is not None, "an honest router here has logits"
    logits = recorded(answer.answer.logits, logits_as)
    weights = recorded(answer.answer.weights, weights_as)
    if logits is None or weights is None:
        return Counter()
    forms = precision_of(logits, logits_as), precision_of(weights, weights_as)
    router = Router(
        config=case.config,
        dtypes=input_dtypes(forms, case.config),
        logits=forms[0],
        weights=forms[1],
        own_logits=FORMATS[logits_as],
        own_weights=FORMATS[weights_as],
        selection_bias=case.inputs.selection_bias,
        per_expert_scale=case.inputs.per_expert_scale,
    )
    marks = judge_block(
        router, answer.answer.expert_ids, Evidence(logits=logits), weights.astype(np.float64)
    )
    found: Counter[str] = Counter()
    for state, number in enumerate(np.bincount(marks.state, minlength=len(STATES)).tolist()):
        found[STATES[state]] += number
    if (marks.state == WRONG).any():
        found[f"wrong of {case.dtype} {logits_as} {weights_as} {case.config}"] += 1
    return found


def states_of_hidden(case: Case, answer: Received, weights_as: str) -> Counter[str]:
    """The same, where the hidden states and the gate were recorded, and no logits."""
    weights = recorded(answer.answer.weights, weights_as)
    if weights is None or case.inputs.gate_delta is not None or case.inputs.logits is not None:
        return Counter()
    forms = precision_of(case.inputs.hidden, "float32"), precision_of(weights, weights_as)
    router = Router(
        config=case.config,
        dtypes=input_dtypes(forms, case.config),
        logits=None,
        weights=forms[1],
        own_weights=FORMATS[weights_as],
        gate_weight=case.inputs.gate_weight,
        gate_bias=case.inputs.gate_bias,
        hidden_scale=case.inputs.hidden_scale,
        selection_bias=case.inputs.selection_bias,
        per_expert_scale=case.inputs.per_expert_scale,
    )
    evidence = of_hidden_states(router, case.inputs.hidden)
    marks = judge_block(router, answer.answer.expert_ids, evidence, weights.astype(np.float64))
    found: Counter[str] = Counter()
    for state, number in enumerate(np.bincount(marks.state, minlength=len(STATES)).tolist()):
        found[f"{STATES[state]} by hidden states"] += number
    return found


def campaign(count: int) -> Counter[str]:
    """Judge the records of ``count`` cases, each of one router in turn, in all pairs of dtypes."""
    routers, found = list(honest_routers()), Counter[str]()
    for number, case in enumerate(cases(count)):
        able = [r for r in routers if r.capabilities().admits(case.config, case.inputs)]
        for router in {0: able[0], 1: able[number % len(able)]}.values():
            raw = router.route(case.config, case.inputs)
            answer = receive(raw, case.config, case.inputs.num_tokens)
            if answer.answer.logits is None:
                continue
            found["answers"] += 1
            for weights_as in RECORDS:
                found += states_of_hidden(case, answer, weights_as)
            for logits_as in RECORDS:
                for weights_as in RECORDS:
                    found["records"] += 1
                    new = states(case, answer, logits_as, weights_as)
                    if new["wrong"]:
                        found[f"wrong in {router.name} {number}"] += 1
                    found += new
    return found


def compared(count: int, folder: Path) -> Counter[str]:
    """Compare files of two honest routers, case by case, and count what is found of them."""
    routers, found = list(honest_routers()), Counter[str]()
    for number, case in enumerate(cases(count, "honest pairs")):
        able = [r for r in routers if r.capabilities().admits(case.config, case.inputs)]
        pair, dtype = (able[0], able[1 + number % (len(able) - 1)]), RECORDS[number % 2]
        paths = [
            _saved(folder / f"{name}.npz", case, r, dtype)
            for name, r in zip("ab", pair, strict=True)
        ]
        known = Known(
            name="a router",
            config=case.config,
            selection_bias=case.inputs.selection_bias is not None,
            per_expert_scale=case.inputs.per_expert_scale is not None,
        )
        one = judged([paths[0]], known, [paths[1]])
        found["pairs"] += 1
        found["wrong"] += one.wrong("A") + one.wrong("B")
        found["misplaced"] += len(one.misplaced)
        for counts in one.found.agreement.counts.values():
            found.update({f"{cause} in a pair": each for cause, each in counts.items()})
    return found


def _saved(path: Path, case: Case, router: Any, dtype: str) -> Path:
    raw = router.route(case.config, case.inputs)
    answer = receive(raw, case.config, case.inputs.num_tokens).answer
    assert answer.logits is not None, "an honest router here has logits"
    own = {"selection_bias": case.inputs.selection_bias}
    own["per_expert_scale"] = case.inputs.per_expert_scale
    arrays = {
        "router_logits": FORMATS[dtype].round(answer.logits).astype(np.float32),
        "expert_ids": answer.expert_ids,
        "weights": answer.weights.astype(np.float32),
        **{name: each for name, each in own.items() if each is not None},
    }
    np.savez(path, **arrays)
    return path


if __name__ == "__main__":
    with TemporaryDirectory() as temporary:
        for words, number in compared(200, Path(temporary)).most_common():
            print(number, words)
    for words, number in campaign(int(sys.argv[1]) if sys.argv[1:] else 200).most_common():
        print(number, words)
