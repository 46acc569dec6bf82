"""The trial of a replay, and the boundary that its answer comes through."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from moe_routing.conformance.calls.replay import ReplayCase
from moe_routing.conformance.judge import Answer, Verdict, judge
from moe_routing.conformance.judge.replay import ReplayFacts, ReplayVerdict
from moe_routing.conformance.trial.base import BaseTrial
from moe_routing.conformance.trial.boundary import Malformed, receive, to_numpy
from moe_routing.implementations import Numerics, RoutingMap
from moe_routing.reference import RouterConfig
from moe_routing.reference.formats import Ids
from moe_routing.reference.routes import ABSENT


@dataclass(frozen=True, eq=False)
class ReplayTrial(BaseTrial[ReplayCase]):
    """One replay for one adapter."""

    method: str = "replay"

    @property
    def facts(self) -> ReplayFacts:
        """The value that events are read from."""
        return self._facts

    @cached_property
    def _facts(self) -> ReplayFacts:
        config, numerics = self.lenience.applied(self.case.config, self.capabilities.numerics)
        made: ReplayFacts = self.memo.once(self.case, facts_of, numerics, config)
        return made

    @property
    def layout(self) -> str:
        """The name of the layout of the answer. Errors: ``Raised``, ``Malformed``."""
        return type(self.native).__name__

    @cached_property
    def answer(self) -> Answer:
        """The answer, read. Errors: ``Raised``, ``Malformed``."""
        return read(self.native, self.case.config, self._facts, self.case.num_tokens)

    @cached_property
    def verdict(self) -> ReplayVerdict:
        """The judge's verdict on forced routes. Errors: as ``answer``."""
        routed = self.capabilities.logits == "routed"
        return ReplayVerdict(facts=self._facts, answer=self.answer, routed=routed)

    @cached_property
    def as_routing(self) -> Verdict:
        """The verdict on a layer without a record, which is routed. Errors: as ``answer``."""
        return judge(self._facts.routing, self.answer, logits=self.capabilities.logits)

    @property
    def in_slots(self) -> bool:
        """Whether the layout of the answer has slots; a map has none. Errors: as ``answer``."""
        return not isinstance(self.native, RoutingMap)


def facts_of(
    case: ReplayCase, numerics: Numerics, config: RouterConfig | None = None
) -> ReplayFacts:
    """Return what the judge knows before it sees an answer."""
    inputs = case.inputs
    return ReplayFacts(config or case.config, inputs.router, inputs.recorded, numerics)


def read(raw: object, config: RouterConfig, facts: ReplayFacts, tokens: int) -> Answer:
    """Read a native answer; a map is read slot by slot. Errors: ``Malformed``, in one line."""
    try:
        if isinstance(raw, RoutingMap) and facts.replayed:
            return _of_map(raw, config, facts.ids)
        return receive(raw, config, tokens).answer
    except Malformed as error:
        words = str(error)
        raise Malformed(words.replace("route returned", "replay returned")) from error


def _of_map(raw: RoutingMap, config: RouterConfig, due: Ids) -> Answer:
    """Read a dense map in the order of the record; other experts take the slots that are left."""
    probs, marked = to_numpy("probs", raw.probs), to_numpy("routing_map", raw.routing_map)
    shape = (len(due), config.num_experts)
    for name, array, kind in (("probs", probs, "f"), ("routing_map", marked, "b")):
        if array.dtype.kind != kind or array.shape != shape:
            words = {"f": "floating point", "b": "bool"}[kind]
            raise Malformed(
                f"{name} is of shape {array.shape} and dtype {array.dtype}, but should be {words} "
                f"of shape {shape}"
            )
    ids = np.where(_at(marked, due), due, ABSENT)
    left = marked.copy()
    tokens, slots = np.nonzero(ids != ABSENT)
    left[tokens, ids[tokens, slots]] = False
    for t in np.flatnonzero(left.any(axis=1)):
        _place(ids[t], due[t], np.flatnonzero(left[t]), int(t))
    weights = np.where(ids == ABSENT, 0.0, _at(probs, ids))
    logits = None if raw.logits is None else to_numpy("logits", raw.logits).astype(np.float64)
    return Answer(
        weights=weights.astype(np.float64), expert_ids=ids, logits=logits, weights_dtype="float32"
    )


def _at(dense: Any, ids: Ids) -> Any:
    at = np.take_along_axis(dense, np.maximum(ids, 0), axis=1)
    return at & (ids != ABSENT) if dense.dtype.kind == "b" else at


def _place(row: Ids, due: Ids, others: Ids, token: int) -> None:
    """Write experts that are not recorded into the slots whose own are missing, then the absent."""
    free = np.flatnonzero(row == ABSENT)
    free = free[np.argsort(due[free] == ABSENT, kind="stable")]
    if len(others) > len(free):
        raise Malformed(
            f"routing_map[{token}] has {(row >= 0).sum() + len(others)} experts, but should have "
            f"at most K={len(row)}"
        )
    row[free[: len(others)]] = others
