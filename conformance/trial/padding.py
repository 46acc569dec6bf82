"""The trial of a padded batch: its tokens judged as a batch of their own, its padding exactly."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from moe_routing.conformance.calls.padding import PaddedCase
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.generators.construct import take_tokens
from moe_routing.conformance.judge import Answer, Bounds, Verdict, judge
from moe_routing.conformance.trial.base import BaseTrial
from moe_routing.conformance.trial.boundary import Malformed, receive, to_numpy
from moe_routing.implementations import Numerics, RoutingMap
from moe_routing.reference.formats import Bools, Floats, Ids
from moe_routing.reference.padding import sentinel_of


@dataclass(frozen=True, eq=False)
class PaddingFacts:
    """What is known of a padded batch before an answer: the call, and its tokens alone."""

    case: PaddedCase
    numerics: Numerics

    @cached_property
    def valid(self) -> Bools:
        """Which tokens are none of padding."""
        return self.case.inputs.padding.valid

    @cached_property
    def tokens(self) -> Case:
        """The batch without its padding."""
        whole = Case(config=self.case.config, inputs=self.case.inputs.router, recipe="given")
        return take_tokens(whole, np.flatnonzero(self.valid))

    @cached_property
    def bounds(self) -> Bounds:
        """The bounds of the tokens."""
        return Bounds(self.tokens.config, self.tokens.inputs, self.numerics)

    @property
    def hidden(self) -> Floats:
        """The hidden states of the padding."""
        return np.asarray(self.case.inputs.hidden[~self.valid], np.float64)


@dataclass(frozen=True, eq=False)
class PaddingTrial(BaseTrial[PaddedCase]):
    """One padded batch for one adapter."""

    method: str = "route_padded"

    @property
    def facts(self) -> PaddingFacts:
        """The value that events are read from."""
        return self._facts

    @cached_property
    def _facts(self) -> PaddingFacts:
        config, numerics = self.lenience.applied(self.case.config, self.capabilities.numerics)
        case = self.case
        if config is not case.config:
            case = replace(case, config=config)
        made: PaddingFacts = self.memo.once(case, facts_of, numerics)
        return made

    @property
    def layout(self) -> str:
        """The name of the layout of the answer. Errors: ``Raised``."""
        return type(self.native).__name__

    @cached_property
    def answer(self) -> Answer:
        """The answer, read. Errors: ``Raised``, ``Malformed``."""
        return read(self.native, self.case, self.nobody)

    @property
    def nobody(self) -> int:
        """The id of no expert that the backend claims."""
        return sentinel_of(self.capabilities.pads.sentinel, self.case.config.num_experts)

    @cached_property
    def verdict(self) -> Verdict:
        """The verdict on the tokens, as if they were the whole batch. Errors: as ``answer``."""
        rows, answer = np.flatnonzero(self._facts.valid), self.answer
        kept = replace(
            answer,
            weights=answer.weights[rows],
            expert_ids=answer.expert_ids[rows],
            logits=None if answer.logits is None else answer.logits[rows],
        )
        return judge(self._facts.bounds, kept, logits=self.capabilities.logits)

    @property
    def padded_ids(self) -> Ids:
        """The answered experts of the padding, ``[P, K]``."""
        return self.answer.expert_ids[~self._facts.valid]

    @property
    def padded_weights(self) -> Floats:
        """The answered weights of the padding, ``[P, K]``."""
        return self.answer.weights[~self._facts.valid]


def facts_of(case: PaddedCase, numerics: Numerics) -> PaddingFacts:
    """Return what is known before an answer."""
    return PaddingFacts(case, numerics)


def read(raw: object, case: PaddedCase, nobody: int) -> Answer:
    """Read a native answer; in a map, padding has no expert. Errors: ``Malformed``."""
    try:
        if isinstance(raw, RoutingMap):
            return _of_map(raw, case, nobody)
        return receive(raw, case.config, case.num_tokens).answer
    except Malformed as error:
        raise Malformed(str(error).replace("route returned", "route_padded returned")) from error


def _of_map(raw: RoutingMap, case: PaddedCase, nobody: int) -> Answer:
    """Read a map: padding with no expert in it has the sentinel, and what its weights are."""
    marked, probs = np.array(to_numpy("routing_map", raw.routing_map)), to_numpy("probs", raw.probs)
    empty = ~case.inputs.padding.valid & ~marked.any(axis=1)
    stand_in = marked.copy()
    stand_in[empty, : case.config.top_k] = True
    whole = replace(raw, routing_map=stand_in)
    answer = receive(whole, case.config, case.num_tokens).answer
    ids: Any = np.where(empty[:, None], nobody, answer.expert_ids)
    weights = np.where(empty[:, None], probs.max(axis=1, initial=0.0)[:, None], answer.weights)
    return replace(answer, expert_ids=ids, weights=weights.astype(np.float64))
