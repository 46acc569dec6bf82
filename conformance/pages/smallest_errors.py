"""The smallest errors of a weight that the judge refuses, by dtype and setting.

``python -m moe_routing.conformance.pages.smallest_errors docs/smallest-errors.md`` writes the page.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from moe_routing.conformance.judge import Answer, Bounds, judge
from moe_routing.implementations import Numerics
from moe_routing.reference import (
    Renormalize,
    RouterConfig,
    RouterInputs,
    Stages,
    stages,
)
from moe_routing.reference.config import LeastPrecise, Score
from moe_routing.reference.formats import INPUT_FORMATS, Floats

SIZES = ((8, 2), (64, 8), (128, 16), (256, 32))
"""E and K of the routers that are judged."""

_TOKENS = 40
_STEPS = np.geomspace(1e-8, 4.0, 400)  # each 5 % above the one before it
_SCORES: tuple[Score, ...] = ("softmax", "sigmoid", "sqrtsoftplus")
_RULES = {"no": None, "yes": Renormalize(), "yes, eps=1e-6": Renormalize(eps=1e-6)}
_PRECISIONS: tuple[tuple[str, str, LeastPrecise], ...] = (
    ("any", "float32", "float32"),
    ("bfloat16", "bfloat16", "input"),
    ("float16", "float16", "input"),
)
"""The inputs in words, the dtype that they come in, and the dtype of all that follows."""


def smallest_error(config: RouterConfig, dtype: str) -> float:
    """Return the least relative error of the first weight that is refused in any token.

    The other weights and the logits are the reference's. Errors are tried in steps of 5 %.
    """
    exact = INPUT_FORMATS[dtype].round(_logits(config.num_experts))
    inputs = RouterInputs.from_logits(np.float32(exact), dtype=dtype)
    bounds, done = Bounds(config, inputs, Numerics()), stages(config, inputs)
    accepted, refused = -1, len(_STEPS) - 1
    while refused - accepted > 1:
        middle = (accepted + refused) // 2
        if _is_refused(bounds, done, float(_STEPS[middle])):
            refused = middle
        else:
            accepted = middle
    return float(_STEPS[refused])


def _logits(experts: int) -> Floats:
    return np.random.default_rng(0).normal(size=(_TOKENS, experts))


def _is_refused(bounds: Bounds, done: Stages, error: float) -> bool:
    """Return whether the first weight may not be larger, or not smaller, by ``error``."""
    answer = Answer(weights=done.weights, expert_ids=done.expert_ids, logits=done.logits)
    for factor in (1.0 + error, 1.0 / (1.0 + error)):
        weights = np.array(done.weights)
        weights[:, 0] *= factor
        if not judge(bounds, replace(answer, weights=weights), logits="routed").weights.all():
            return True
    return False


def page() -> str:
    """Return the page of the docs."""
    return _HEAD + "\n".join(_rows()) + "\n" + _FOOT


def _rows() -> Iterator[str]:
    sizes = " | ".join(f"K={top_k} of {experts}" for experts, top_k in SIZES)
    yield f"| inputs | scores in | score | renormalised | {sizes} |"
    yield "|" + "---|" * (4 + len(SIZES))
    for inputs, dtype, precision in _PRECISIONS:
        scores = "the inputs' dtype" if precision == "input" else precision
        for score in _SCORES:
            for words, rule in _RULES.items():
                errors = _errors(score, rule, dtype, precision)
                yield f"| {' | '.join([inputs, scores, score, words, *errors])} |"


def _errors(
    score: Score, rule: Renormalize | None, dtype: str, precision: LeastPrecise
) -> Iterator[str]:
    for experts, top_k in SIZES:
        config = RouterConfig(
            num_experts=experts,
            top_k=top_k,
            score=score,
            renormalize=rule,
            logits_dtype=precision,
            scores_dtype=precision,
            weights_dtype=precision,
        )
        yield _shown(smallest_error(config, dtype))


def _shown(error: float) -> str:
    return f"{error:.1e}" if error < 1e-3 else f"{100 * error:.2g} %"


_HEAD = """# The smallest errors that are caught

This page is made from the code:
`python -m moe_routing.conformance.pages.smallest_errors docs/smallest-errors.md`.

A judge that permits what rounding can explain lets smaller errors pass. How small depends on the
precision that the configuration permits. Each row is a setting; each number is the least relative
error of one weight of K that `weights.match` refuses in one of 40 tokens, where the logits are
returned (`logits="routed"`) and normally distributed. Where they are not, what a logit may err by
comes on top. [judging.md](spec/judging.md) derives the bounds.

"""

_FOOT = """
An error that all weights of a row share shows in `weights.sum` as well. The logits, where they are
returned, are held to rounding by themselves.
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the page of the smallest errors.")
    parser.add_argument("page", type=Path, help="docs/smallest-errors.md")
    parser.parse_args().page.write_text(page())
