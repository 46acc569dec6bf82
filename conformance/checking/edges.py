"""Edges: common causes that break many clauses at once, each with the clause that is about it.

A backend that cannot take an empty batch fails wherever a case happens to have no tokens. So
where one edge explains several red clauses, it stays red in one of them, and the others are
checked again without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.checking.results import ClauseResult
from moe_routing.conformance.checking.status import STATUSES
from moe_routing.conformance.trial.lenience import STRICT, Lenience


@dataclass(frozen=True, kw_only=True)
class Edge:
    """One edge: ``words`` say how a clause is checked past it, ``clause`` is the one about it.

    It is either the cases for which ``holds`` is True, or arithmetic that ``lenience`` grants.
    """

    slug: str
    words: str
    clause: str
    holds: Callable[[AnyCase], bool] = lambda case: False
    lenience: Lenience = STRICT

    def may_explain(self, result: ClauseResult) -> bool:
        """Whether a red result may be due to this edge."""
        if result.case is None or not STATUSES[result.status].broken:
            return False
        if self.lenience is STRICT:
            return self.holds(result.case)
        return result.failure is not None and result.failure.stage in _COMPUTED


_COMPUTED = ("logits", "selection", "weights")


def _group_of_one(case: AnyCase) -> bool:
    groups = getattr(case.config, "groups", None)
    return groups is not None and groups.count == case.config.num_experts


def _infinite(name: str, case: AnyCase) -> bool:
    values = getattr(case.inputs, name, None)
    return values is not None and bool(np.isinf(values).any())


def _stored_as(dtype: str, case: AnyCase) -> bool:
    return bool(case.dtype == dtype)


def _coarse(slug: str, words: str, **granted: Mapping[str, Any]) -> Edge:
    words = f"as if {words} were permitted"
    return Edge(slug=slug, words=words, clause="weights.match", lenience=Lenience(**granted))


EDGES = (
    Edge(
        slug="empty-batch",
        words="without empty batches",
        clause="robustness.empty-batch",
        holds=lambda case: case.num_tokens == 0,
    ),
    Edge(
        slug="group-of-one",
        words="without groups of one expert",
        clause="groups.smaller-than-top",
        holds=_group_of_one,
    ),
    Edge(
        slug="lone-expert",
        words="without a lone expert",
        clause="selection.k-equals-e",
        holds=lambda case: case.sizes.get("E") == 1,
    ),
    Edge(
        slug="infinite-selection-bias",
        words="without infinite selection biases",
        clause="selection.bias-steers",
        holds=partial(_infinite, "selection_bias"),
    ),
    Edge(
        slug="infinite-gate-bias",
        words="without infinite gate biases",
        clause="robustness.infinite-logit",
        holds=partial(_infinite, "gate_bias"),
    ),
    _coarse("subnormals", "flushed subnormals", numerics={"flush_subnormals": True}),
    _coarse("tf32", "tf32 products", numerics={"multiply": "tf32"}),
    _coarse("sigmoid", "a sigmoid of absolute error", numerics={"sigmoid": "absolute"}),
    _coarse("softplus", "a softplus of absolute error", numerics={"softplus": "absolute"}),
    _coarse("bfloat16-scores", "scores in bfloat16", dtypes={"scores_dtype": "bfloat16"}),
    *(
        Edge(
            slug=f"{dtype}-input",
            words=f"without {dtype} inputs",
            clause="weights.match",
            holds=partial(_stored_as, dtype),
        )
        for dtype in ("bfloat16", "float16")
    ),
)
"""Every edge; among those that may explain equally many, the first is tried first."""

BY_SLUG = {edge.slug: edge for edge in EDGES}
"""Every edge by its slug."""

FEWEST = 2
"""The fewest red clauses for which an edge is considered: one alone is reported as it is."""

Check = Callable[[str, tuple[str, ...], bool], ClauseResult]
"""Checks a clause, by its id, past the edges that are named; the flag: make failures smaller."""


def settled(results: Sequence[ClauseResult], check: Check) -> list[ClauseResult]:
    """Return the results with each edge red in one clause, where it alone explains several.

    ``check`` checks a clause again past some edges. Edges are tried from the one that may explain
    most. What is red past an edge stays red.
    """
    found = {each.id: each for each in results}
    left: list[Edge] = [*EDGES]
    passed: tuple[str, ...] = ()
    while left:
        red, edge = max(((_red(found, each), each) for each in left), key=lambda pair: len(pair[0]))
        left.remove(edge)
        if len(red) < FEWEST:
            break
        keeper = edge.clause if edge.clause in red else red[0]
        others = [id_ for id_ in red if id_ != keeper]
        if _explained(others, partial(_checked, check, (*passed, edge.slug))):
            passed = (*passed, edge.slug)
            found |= {each.id: each for each in _past(others, passed, check)}
    return list(found.values())


def _red(found: Mapping[str, ClauseResult], edge: Edge) -> list[str]:
    return [each.id for each in found.values() if edge.may_explain(each)]


def _past(red: Sequence[str], passed: tuple[str, ...], check: Check) -> Iterator[ClauseResult]:
    """Check clauses past edges; yield what was found where there was anything to check."""
    for id_ in red:
        again = check(id_, passed, True)
        if _holds(again) or STATUSES[again.status].broken:
            yield again


def _checked(check: Check, past: tuple[str, ...], id_: str) -> ClauseResult:
    return check(id_, past, False)


def _explained(red: Sequence[str], check: Callable[[str], ClauseResult]) -> bool:
    """Whether the first red clause that has cases past the edge holds there."""
    for id_ in reversed(red):  # later clauses are about more of a call
        result = check(id_)
        if result.constructed + result.examples > 0:
            return _holds(result)
    return False


def _holds(result: ClauseResult) -> bool:
    """Whether a clause was checked on any case, and holds."""
    return STATUSES[result.status].held and result.constructed + result.examples > 0


def words_of(results: Sequence[ClauseResult]) -> list[str]:
    """Return, a line for each edge, how many clauses were checked past it, and where it is red."""
    lines = []
    for edge in EDGES:
        past = [each.id for each in results if edge.slug in each.past]
        red = [each.id for each in results if each.id not in past and edge.may_explain(each)]
        if past and red:
            others = f"{len(past)} other clause{'s were' if len(past) > 1 else ' was'}"
            lines.append(f"{others} checked {edge.words}: see {red[0]}")
    return lines
