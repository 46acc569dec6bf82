"""The reference of a large call: made by blocks of rows, without keeping what is read of few.

A temporary of 32 MiB is mapped and zeroed anew by the system whenever one is made; one of a block
stays in a cache. What is made here is equal, bit for bit, to what is made of all rows at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from moe_routing.conformance.judge.certain_logits import (
    CertainLogits,
    LazyLogits,
    certain_logits,
)
from moe_routing.conformance.judge.defined_scores import judged_tokens
from moe_routing.conformance.judge.logits import (
    LogitBounds,
    Terms,
    bounds_of_terms,
    format_of,
    logit_terms,
)
from moe_routing.implementations import Numerics
from moe_routing.reference import RouterConfig, RouterInputs, Stages, stages
from moe_routing.reference.formats import Bools, FloatFormat, Floats
from moe_routing.reference.inputs import check_inputs
from moe_routing.reference.logits import gate_logits, gate_products
from moe_routing.reference.routing import later_stages

LARGE = 2**20
"""The numbers in a call's logits above which it is judged by blocks of rows."""

_BLOCK = 2**18  # numbers in the logits of a block

_KEPT = ("expert_ids", "gathered", "renormalized", "weights")


def blocks_of(config: RouterConfig, inputs: RouterInputs) -> list[slice]:
    """Return the blocks of rows of a large call; none where it is small, or routed by a table."""
    tokens, rows = inputs.num_tokens, max(1, _BLOCK // config.num_experts)
    if tokens * config.num_experts <= LARGE or inputs.expert_table is not None:
        return []
    return [slice(first, min(first + rows, tokens)) for first in range(0, tokens, rows)]


class LeanStages(Stages):
    """The stages of a large call: what is ``[T, E]`` beyond the logits is made when it is read."""

    def __init__(self, config: RouterConfig, inputs: RouterInputs, **made: Any) -> None:
        self.__dict__.update(made, _call=(config, inputs))

    def rows(self, which: slice) -> LeanStages:
        """Take the rows ``which``."""
        config, inputs = self.__dict__["_call"]
        products = tuple(each[which] for each in self.products)
        kept = {name: getattr(self, name)[which] for name in ("logits", *_KEPT)}
        return LeanStages(config, inputs, products=products, **kept)

    def __getattr__(self, name: str) -> Any:
        """Make the whole, of which ``name`` is a stage. Errors: ``AttributeError``."""
        if name not in Stages.__dataclass_fields__:
            raise AttributeError(name)
        config, inputs = self.__dict__["_call"]
        whole = stages(config, inputs, logits=self.__dict__["logits"])
        self.__dict__.update({**vars(whole), **self.__dict__})  # what there is already stays
        return self.__dict__[name]


@dataclass(frozen=True, kw_only=True, eq=False)
class LargeCall:
    """What is held of a large call: its ``reference`` and its ``judged`` tokens.

    Its terms are made once, when a logit is not ``certain`` without them.
    """

    reference: LeanStages
    judged: Bools
    out: FloatFormat
    certain: CertainLogits | None
    make: Callable[[], Terms]

    @classmethod
    def of(
        cls, config: RouterConfig, inputs: RouterInputs, numerics: Numerics, blocks: list[slice]
    ) -> LargeCall:
        """Walk over the ``blocks`` of rows of a call once. Errors: as ``stages``."""
        check_inputs(config, inputs)
        products = gate_products(config, inputs)
        logits, out = gate_logits(products, inputs), format_of(config.logits_dtype, inputs)
        make = cache(partial(logit_terms, config, inputs, products, numerics))
        certain = certain_logits(config, inputs, out)
        parts, judged = [], []
        for rows in blocks:
            done = later_stages(config, inputs, (), logits[rows])
            bounds = _permitted(certain, make, logits[rows], out, rows)
            judged.append(judged_tokens(config, inputs, bounds, done))
            parts.append([getattr(done, name) for name in _KEPT])
        kept = {
            name: np.concatenate(each)
            for name, each in zip(_KEPT, zip(*parts, strict=True), strict=True)
        }
        reference = LeanStages(config, inputs, products=products, logits=logits, **kept)
        found = np.concatenate(judged)
        return cls(reference=reference, judged=found, out=out, certain=certain, make=make)

    def logits(self, rows: slice = slice(None)) -> LogitBounds:
        """Return the permitted logits of all, or of some rows."""
        return _permitted(self.certain, self.make, self.reference.logits[rows], self.out, rows)


def _permitted(
    certain: CertainLogits | None,
    make: Callable[[], Terms],
    logits: Floats,
    out: FloatFormat,
    rows: slice,
) -> LogitBounds:
    """Return the permitted logits of some rows, made now, or when they are read."""

    def bounds() -> LogitBounds:
        return bounds_of_terms(make().rows(rows), logits, out)

    return bounds() if certain is None else LazyLogits(logits, out, certain.rows(rows), bounds)
