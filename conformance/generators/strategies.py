"""Hypothesis strategies for routers: configurations, inputs, whole cases.

They make the choices of ``choices`` by drawing an index into what is offered.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

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
    return focused_cases(capabilities or Capabilities(), Focus(recipes=tuple(recipes)))


@st.composite
def focused_cases(draw: st.DrawFn, capabilities: Capabilities, focus: Focus) -> Case:
    """Generate whole cases under ``focus``."""
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
