"""Hypothesis strategies for routers: configurations, inputs, whole cases.

They make the choices of ``choices`` by drawing an index into what is offered, and so shrink.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.calls.shared_experts import SharedCase
from moe_routing.conformance.generators.axes import Choose
from moe_routing.conformance.generators.choices import (
    Focus,
    choose_case,
    choose_draft,
    choose_router,
    choose_shared_case,
    narrowed_by,
)
from moe_routing.conformance.generators.inputs import Draft, make_inputs
from moe_routing.conformance.generators.recipes import RECIPES
from moe_routing.implementations import Capabilities
from moe_routing.reference import RouterConfig, RouterInputs
from moe_routing.reference.shared_experts import SHARED_KINDS

Example = TypeVar("Example")

_BYTES = 8192  # given to Hypothesis for an example


def steady_examples(
    strategy: st.SearchStrategy[Example], name: str, count: int
) -> Iterator[Example]:
    """Yield ``count`` examples, the n-th of which follows from ``strategy``, ``name`` and n alone.

    Hypothesis makes them of bytes. Its own search would also try constants of the modules that
    a process has imported so far, and draw a tenth to a fifth of the examples twice.
    """
    example_of = _reader(strategy)
    for number in range(count):
        yield from example_of(random.Random(f"{name}/{number}").randbytes(_BYTES))


def _reader(strategy: st.SearchStrategy[Example]) -> Callable[[bytes], Iterator[Example]]:
    """Return what makes one example of bytes; none, where the strategy wants more of them."""
    made: list[Example] = []

    @settings(database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def keep(example: Example) -> None:
        made.append(example)

    def read(data: bytes) -> Iterator[Example]:
        keep.hypothesis.fuzz_one_input(data)  # type: ignore[attr-defined]
        while made:
            yield made.pop()

    return read


def router_configs(capabilities: Capabilities | None = None) -> st.SearchStrategy[RouterConfig]:
    """Generate configurations that ``capabilities`` claim, for any inputs."""
    return _configs(capabilities or Capabilities())


def router_inputs(
    config: RouterConfig,
    capabilities: Capabilities | None = None,
    *,
    recipes: Sequence[str] = tuple(RECIPES),
) -> st.SearchStrategy[RouterInputs]:
    """Generate inputs for ``config`` that ``capabilities`` claim with it.

    ``recipes`` names the distributions to draw from. Errors: ``ValueError`` where nothing
    claims ``config``.
    """
    capabilities = capabilities or Capabilities()
    if not any(claim.covers(config) for claim in capabilities.claims):
        raise ValueError(f"Cannot draw inputs: the capabilities do not claim {config}")
    drafts = _drafts(config, capabilities, Focus(recipes=tuple(recipes)))
    return drafts.map(lambda draft: make_inputs(config, draft))


def routing_cases(
    capabilities: Capabilities | None = None, *, recipes: Sequence[str] = tuple(RECIPES)
) -> st.SearchStrategy[Case]:
    """Generate whole cases from the claims of ``capabilities``, never by rejection."""
    return _cases(capabilities or Capabilities(), Focus(recipes=tuple(recipes)))


@st.composite
def _cases(draw: st.DrawFn, capabilities: Capabilities, focus: Focus) -> Case:
    return choose_case(_chooser(draw), capabilities, focus)


@st.composite
def _configs(draw: st.DrawFn, capabilities: Capabilities) -> RouterConfig:
    return choose_router(_chooser(draw), capabilities)


@st.composite
def _drafts(
    draw: st.DrawFn, config: RouterConfig, capabilities: Capabilities, focus: Focus
) -> Draft:
    return choose_draft(narrowed_by(_chooser(draw), focus.offers), config, capabilities, focus)


@st.composite
def shared_expert_cases(
    draw: st.DrawFn,
    dtypes: Sequence[str],
    *,
    kinds: Sequence[str] = SHARED_KINDS,
    gated: Sequence[bool] = (False, True),
) -> SharedCase:
    """Generate shared-expert calls of the given kinds."""
    return choose_shared_case(_chooser(draw), dtypes, kinds=kinds, gated=gated)


def _chooser(draw: st.DrawFn) -> Choose:
    """Return a chooser that draws indices: strategies are cached, since making one is slow."""

    def choose(name: str, offered: Sequence[Any]) -> Any:
        return offered[0] if len(offered) == 1 else offered[draw(_index_below(len(offered)))]

    return choose


@cache
def _index_below(count: int) -> st.SearchStrategy[int]:
    return st.integers(0, count - 1)
