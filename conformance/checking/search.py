"""The search: the cases that a clause draws, one after another, always the same for a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.clauses import Clause
from moe_routing.implementations import Capabilities


class _Enough(BaseException):
    """Raised to stop generating cases early."""


def draw_cases(
    clause: Clause,
    narrowed: Capabilities,
    *,
    suite_seed: int,
    max_examples: int,
    enough: Callable[[AnyCase], bool],
) -> None:
    """Call ``enough`` on up to ``max_examples`` cases of ``clause`` until it returns True.

    ``narrowed`` are the capabilities that the clause is about (``Clause.narrowed``). The
    cases follow from the seed, the clause and the capabilities alone: one adapter gets the
    same cases as a hundred do.
    """
    from hypothesis import HealthCheck, Phase, given, seed, settings

    digest = hashlib.sha256(f"{suite_seed}/{clause.id}".encode()).digest()

    @seed(int.from_bytes(digest[:8], "big"))
    @settings(
        max_examples=max_examples,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(clause.cases(narrowed))
    def draw(case: AnyCase) -> None:
        if enough(case):
            raise _Enough

    with steady_draws():
        try:
            draw()
        except _Enough:
            return


@contextmanager
def steady_draws() -> Iterator[None]:
    """Make drawn cases independent of constants that Hypothesis harvests from imported modules.

    Hypothesis tries them, from version 6.131 on, so that the cases would depend on the modules
    that a process has imported so far: on an edit, on the clauses before, on the worker.
    """
    from hypothesis.internal.conjecture import providers
    from hypothesis.internal.constants_ast import Constants

    provider = getattr(providers, "HypothesisProvider", None)
    if provider is None or not hasattr(provider, "_local_constants"):
        yield
        return
    before = provider._local_constants
    provider._local_constants = Constants()
    providers.CONSTANTS_CACHE.cache.clear()
    try:
        yield
    finally:
        provider._local_constants = before
        providers.CONSTANTS_CACHE.cache.clear()
