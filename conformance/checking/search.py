"""The search: the cases that a clause draws, one after another, always the same for a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.clauses import Clause
from moe_routing.conformance.generators.seeds import Seeded
from moe_routing.implementations import Capabilities


def draw_cases(
    clause: Clause,
    narrowed: Capabilities,
    *,
    suite_seed: int,
    max_examples: int,
    enough: Callable[[AnyCase], bool],
) -> None:
    """Give ``enough`` up to ``max_examples`` cases of ``clause`` until it returns True.

    ``narrowed`` are the capabilities that the clause is about (``Clause.narrowed``). Each case
    follows from the seed, the clause, its number and the capabilities alone: one adapter or a
    hundred get the same cases, in any process and after any other clause.
    """
    for case in drawn_cases(clause, narrowed, suite_seed=suite_seed, max_examples=max_examples):
        if enough(case):
            return


def drawn_cases(
    clause: Clause, narrowed: Capabilities, *, suite_seed: int, max_examples: int
) -> Iterator[AnyCase]:
    """Yield the cases of ``draw_cases``."""
    name, count = f"{suite_seed}/{clause.id}", clause.draws(max_examples)
    source = clause.cases(narrowed)
    if isinstance(source, Seeded):
        yield from source.examples(name, count)
        return
    from moe_routing.conformance.generators.strategies import steady_examples

    yield from steady_examples(source, name, count)
