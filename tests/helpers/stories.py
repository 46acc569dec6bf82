"""The failure that an answer makes which differs from the reference's in what is given."""

from __future__ import annotations

from typing import Any

import numpy as np

from moe_routing.conformance.explain.failure import Failure, first_failure
from moe_routing.conformance.judge import Answer, Bounds, judge
from moe_routing.implementations import Numerics
from moe_routing.reference import RouterConfig, RouterInputs, route

PLAIN = {"score": "identity", "weights_from": "softmax_of_selected"}
"""Scores that are the logits themselves."""


def failure_on(
    config: RouterConfig,
    inputs: RouterInputs,
    *,
    ids: Any = None,
    weights: Any = None,
    own: Any = None,
) -> Failure:
    """Judge the reference's answer with other ids, weights or logits, which should be wrong.

    ``weights`` may be a function of the right ones.
    """
    right = route(config, inputs)
    weights = right.weights if weights is None else weights
    answer = Answer(
        weights=np.array(weights(right.weights) if callable(weights) else weights),
        expert_ids=right.expert_ids if ids is None else np.array(ids),
        logits=right.logits if own is None else np.array(own),
    )
    verdict = judge(Bounds(config, inputs, Numerics()), answer, logits="copy")
    found = first_failure(verdict, "logits", "selection", "weights")
    assert found is not None, "the answer should be wrong"
    return found


def story_of(
    logits: Any,
    *,
    ids: Any = None,
    weights: Any = None,
    own: Any = None,
    arrays: dict[str, Any] | None = None,
    **fields: Any,
) -> Failure:
    """The failure of an answer to a call with these ``logits``, and these optional ``arrays``."""
    given = {name: x if isinstance(x, str) else np.array(x) for name, x in (arrays or {}).items()}
    inputs = RouterInputs.from_logits(np.array(logits, dtype=np.float32), **given)
    config = RouterConfig(num_experts=inputs.num_experts, **fields)
    return failure_on(config, inputs, ids=ids, weights=weights, own=own)
