"""The whole table: every router class of the package, as a row or as out of scope."""

from __future__ import annotations

from dataclasses import dataclass

from moe_routing.implementations.transformers import sigmoid, softmax
from moe_routing.implementations.transformers.rows import Row

ROWS: dict[str, Row] = {row.name: row for row in (*softmax.ROWS, *sigmoid.ROWS)}
"""Every row by its name."""

MEMBERS: tuple[str, ...] = tuple(ROWS)
"""The names of the adapters, after ``transformers:``."""


@dataclass(frozen=True, kw_only=True)
class Unserved:
    """A router that the pipeline cannot express: the model type, its class, and why."""

    name: str
    router: str
    reason: str


UNSERVED = (
    Unserved(
        name="doge",
        router="doge.DogeCDMoE",
        reason="an expert's logit is the sum of two from half-tables of sqrt(E) each, so it "
        "cannot produce E independent logits",
    ),
    Unserved(
        name="inkling_text",
        router="inkling.InklingTopkRouter",
        reason="weights are normalised together with those of the shared experts, which the "
        "router returns as well",
    ),
    Unserved(
        name="nllb_moe",
        router="nllb_moe.NllbMoeTop2Router",
        reason="it takes two experts whatever K is, and its block runs experts 0 and 1 only, "
        "since it reads the mask of first choices as ids",
    ),
    Unserved(
        name="phimoe",
        router="phimoe.PhimoeTopKRouter",
        reason="it picks two experts one after the other, each weighed by a softmax of its own "
        "over the logits within a threshold of its own, of which the second leaves the first out "
        "(sparsemixer): weights follow from the order of choice, not from scores, and a "
        "threshold that rounding crosses changes them by a jump",
    ),
    Unserved(
        name="zaya",
        router="zaya.ZayaRouter",
        reason="logits come from an MLP with a state carried from layer to layer, and one "
        "class means that no expert runs",
    ),
)
"""The routers without an adapter."""

OUT_OF_SCOPE: dict[str, str] = {each.name: each.reason for each in UNSERVED}
"""Why each of them has no adapter, by the name that it would have."""
