"""Bounds: everything the judge knows of a call before it sees an answer."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from moe_routing.conformance.judge.certain_logits import LazyLogits, certain_logits
from moe_routing.conformance.judge.defined_scores import judged_tokens
from moe_routing.conformance.judge.intervals import Interval
from moe_routing.conformance.judge.later import SelectionBounds as SelectionBounds
from moe_routing.conformance.judge.lean import LargeCall, blocks_of
from moe_routing.conformance.judge.logits import (
    LogitBounds,
    format_of,
    logit_bounds,
)
from moe_routing.conformance.judge.numerics import products_of
from moe_routing.conformance.judge.selection import chosen_mask, only_selects
from moe_routing.implementations import Numerics
from moe_routing.reference import RouterConfig, RouterInputs, Stages, stages
from moe_routing.reference.formats import Bools, FloatFormat, Ids


@dataclass(frozen=True, eq=False)
class Bounds:
    """Everything the judge knows before it sees an answer's ids, computed once per case.

    ``other`` are bounds of the same call under other numerics, if there are any: what does
    not depend on the numerics is taken from them.
    """

    config: RouterConfig
    inputs: RouterInputs
    numerics: Numerics
    other: Bounds | None = None

    @property
    def differing(self) -> Bounds:
        """The bounds of the tokens that differ, where those are what is known: of all, here."""
        return self

    @property
    def score_format(self) -> FloatFormat:
        """The least precise format that scores may be computed in."""
        return format_of(self.config.scores_dtype, self.inputs)

    @property
    def weight_format(self) -> FloatFormat:
        """The least precise format that weights may be stored in."""
        return format_of(self.config.weights_dtype, self.inputs)

    @cached_property
    def reference(self) -> Stages:
        """The reference's stages."""
        if self.large is not None:
            return self.large.reference
        return stages(self.config, self.inputs) if self.other is None else self.other.reference

    @cached_property
    def blocks(self) -> list[slice]:
        """The blocks of rows that a large call is judged by; none where it is small."""
        return blocks_of(self.config, self.inputs)

    @cached_property
    def large(self) -> LargeCall | None:
        """What is held of a large call, for its blocks; None of a small one."""
        if not self.blocks:
            return None
        if (other := self._of_equal_products) is not None:
            return other.large
        with np.errstate(all="ignore"):
            return LargeCall.of(self.config, self.inputs, self.numerics, self.blocks)

    def block(self, rows: slice) -> Bounds:
        """Return the bounds of a block of a large call; its inputs are those of all."""
        assert self.large is not None, "only a large call has blocks"
        one = Bounds(self.config, self.inputs, self.numerics)
        one.__dict__["reference"] = self.large.reference.rows(rows)
        one.__dict__["judged"] = self.judged[rows]
        with np.errstate(all="ignore"):
            one.__dict__["logits"] = self.large.logits(rows)
        return one

    @cached_property
    def logits(self) -> LogitBounds:
        """The permitted logits."""
        if (other := self._of_equal_products) is not None:
            return other.logits
        with np.errstate(all="ignore"):
            if self.large is not None:
                return self.large.logits()
            return self._logits()

    def _logits(self) -> LogitBounds:
        """Return the permitted logits; those of many products are made when they are read."""
        out = format_of(self.config.logits_dtype, self.inputs)
        certain = certain_logits(self.config, self.inputs, out)
        make = partial(logit_bounds, self.config, self.inputs, self.reference, self.numerics)
        return make() if certain is None else LazyLogits(self.reference.logits, out, certain, make)

    @cached_property
    def judged(self) -> Bools:
        """Which tokens ``[T]`` have defined scores, so that more than their ids can be judged."""
        if (other := self._of_equal_products) is not None:
            return other.judged
        if self.large is not None:
            return self.large.judged
        with np.errstate(all="ignore"):
            return judged_tokens(self.config, self.inputs, self.logits, self.reference)

    @property
    def all_defined(self) -> bool:
        """Whether the answer to every token is defined: its scores, and each of its weights."""
        weights = self.reference.weights
        return bool(self.judged.all() and np.isfinite(weights).all())

    @property
    def _of_equal_products(self) -> Bounds | None:
        """The other bounds, where their numerics declare the same of products."""
        if self.other is None or products_of(self.numerics) != products_of(self.other.numerics):
            return None
        return self.other

    @cached_property
    def from_reference(self) -> SelectionBounds:
        """The bounds of the later stages, from the reference's logits."""
        return self.from_logits(self.logits.permitted)

    def repeated(self, tokens: Ids, *, logits: bool, later: bool) -> Bounds:
        """Return these bounds for ``tokens``, which may repeat; the inputs are not repeated.

        Bounds that no answer is judged by may be left out: of the ``logits``, and of the
        ``later`` stages from the reference's logits.
        """
        one = Bounds(self.config, self.inputs, self.numerics)
        ids = self.reference.expert_ids[tokens]
        one.__dict__["reference"] = _at_rows(self.reference, ids)
        one.__dict__["judged"] = self.judged[tokens]
        if logits:
            one.__dict__["logits"] = self.logits.rows(tokens)
        if later:
            one.__dict__["from_reference"] = self.from_reference.rows(tokens)
        return one

    def from_logits(self, logits: Interval) -> SelectionBounds:
        """Return the bounds of the later stages from any logit bounds."""
        return SelectionBounds(
            config=self.config,
            selection_bias=self.inputs.selection_bias,
            numerics=self.numerics,
            form=self.score_format,
            logits=logits,
            judged=self.judged,
        )

    @cached_property
    def only_reference(self) -> Bools:
        """The tokens ``[T]`` for which the reference's set is the only right one."""
        chosen = chosen_mask(self.reference.expert_ids, self.config.num_experts)
        later = self.from_reference
        if self.inputs.expert_table is not None:
            return np.ones(len(chosen), dtype=bool)
        return self.judged & only_selects(
            later.competing, chosen, self.config.groups, later.group_format
        )


def _at_rows(reference: Stages, expert_ids: Ids) -> Stages:
    """Return the reference with the ids of some rows: all that the judge of those reads of it."""
    one = copy.copy(reference)
    object.__setattr__(one, "expert_ids", expert_ids)
    return one
