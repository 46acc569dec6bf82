"""Nothing that an honest router did is called wrong; the campaign is in the helper's docstring."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from honest_traces import campaign, compared

from moe_routing.conformance.judge.intervals import Interval
from moe_routing.conformance.traces.blocks import permitted_weights
from moe_routing.conformance.traces.exact import nearly_between, nearly_exact
from moe_routing.conformance.traces.router import Router
from moe_routing.reference import Renormalize, RouterConfig
from moe_routing.reference.formats import FLOAT32


def test_no_record_of_an_honest_router_is_wrong() -> None:
    found = campaign(12)
    assert found["wrong"] == found["wrong by hidden states"] == 0, found
    assert found["right by hidden states"] > 100
    assert found["right"] > 2000


def test_two_honest_routers_differ_by_what_explains_it(tmp_path: Path) -> None:
    found = compared(12, tmp_path)
    causes = {"alike in a pair", "ties in a pair", "rounding in a pair"}
    assert found["wrong"] == found["misplaced"] == 0, found
    assert {each for each in found if each.endswith("in a pair")} <= causes, found


@pytest.mark.parametrize("renormalize", [None, Renormalize(), Renormalize(eps=1e-6)])
@pytest.mark.parametrize("scale", [1.0, -2.5])
@pytest.mark.parametrize("score", ["softmax", "sigmoid", "sqrtsoftplus"])
def test_what_needs_no_intervals_is_within_them(
    score: str, scale: float, renormalize: Renormalize | None
) -> None:
    """Weights at the very end of what is settled early lie within what the judge permits."""
    config = RouterConfig(
        num_experts=16,
        top_k=4,
        score=score,  # type: ignore[arg-type]
        scale=scale,
        renormalize=renormalize,
    )
    router = Router(config=config, dtypes=("float32",), logits=FLOAT32, weights=FLOAT32)
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((400, 16)) * 4
    ids = np.argsort(-logits, axis=1)[:, :4]
    around = Interval(logits - 0.01, logits + 0.01)
    settled = 0
    for spread, low, permitted in ((0.0, logits, Interval.point(logits)), (0.01, None, around)):
        ends = permitted_weights(router, ids, permitted, np.zeros(ids.shape))
        middle = (ends.lo + ends.hi) / 2
        for share in np.linspace(0.0, 1.5, 16):
            weights = middle + share * (ends.hi - middle)
            if low is not None:
                early = nearly_exact(router, low, ids, weights)
            else:
                early = nearly_between(
                    router, lambda at: around if at is None else around.at(at), ids, weights
                )
            settled += int(early.sum())
            assert not (early & ~ends.contains(weights).all(axis=1)).any(), (spread, share)
    assert settled
