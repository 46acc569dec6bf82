"""Hypothesis strategies for routers: configurations, inputs, whole cases.

They draw structure with Hypothesis (sizes, axes, a recipe, a seed, lists of row and
expert indices into a seeded pool) and leave the numbers to seeded NumPy: drawing every
element is slow, and a bare seed does not shrink. Choices are ordered plainest first,
since that is where shrinking ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from moe_routing.conformance.case import Case, SharedCase
from moe_routing.conformance.generators import axes
from moe_routing.conformance.generators.inputs import POOL, Draft, make_inputs
from moe_routing.conformance.generators.recipes import BIASES, RECIPES
from moe_routing.conformance.generators.shared import make_shared_case
from moe_routing.implementations import Capabilities
from moe_routing.reference import RouterConfig, RouterInputs

BUDGET = 2**15
"""The most numbers in a case's logits, ``T * E``: what keeps a case in milliseconds."""

_SEEDS = st.integers(0, 2**16 - 1)


@st.composite
def router_configs(draw: st.DrawFn, capabilities: Capabilities | None = None) -> RouterConfig:
    """Generate configurations that ``capabilities`` claim, whatever the inputs are."""
    capabilities = capabilities or Capabilities()
    choose = _chooser(draw)
    claim = axes.choose_claim(choose, capabilities)
    return axes.choose_config(choose, claim, capabilities.limits)


@st.composite
def router_inputs(
    draw: st.DrawFn,
    config: RouterConfig,
    capabilities: Capabilities | None = None,
    *,
    recipes: Sequence[str] = tuple(RECIPES),
    hidden_sizes: Sequence[int] = axes.HIDDEN_SIZES,
) -> RouterInputs:
    """Generate inputs for ``config`` that ``capabilities`` claim beside it.

    ``recipes`` names the distributions to draw from, ``hidden_sizes`` the values of H.
    """
    return make_inputs(
        config, draw(_drafts(config, capabilities or Capabilities(), recipes, hidden_sizes))
    )


@st.composite
def routing_cases(
    draw: st.DrawFn,
    capabilities: Capabilities | None = None,
    *,
    recipes: Sequence[str] = tuple(RECIPES),
    hidden_sizes: Sequence[int] = axes.HIDDEN_SIZES,
) -> Case:
    """Generate whole cases from the claims of ``capabilities``, never by rejection."""
    capabilities = capabilities or Capabilities()
    config = draw(router_configs(capabilities))
    draft = draw(_drafts(config, capabilities, recipes, hidden_sizes))
    return Case(config=config, inputs=make_inputs(config, draft), recipe=draft.recipe)


@st.composite
def shared_expert_cases(
    draw: st.DrawFn,
    dtypes: Sequence[str],
    *,
    kinds: Sequence[str] = ("singular", "plural", "mlp", "none"),
    gated: Sequence[bool] = (False, True),
) -> SharedCase:
    """Generate shared-expert calls of the given kinds."""
    kind = draw(st.sampled_from(kinds))
    return make_shared_case(
        kind=kind,
        gated=kind != "none" and draw(st.sampled_from(gated)),
        dtype=draw(st.sampled_from(dtypes)),
        tokens=draw(st.sampled_from((1, 2, 3, 0, 7, 17))),
        hidden=draw(st.sampled_from((1, 2, 4, 8, 33))),
        width=draw(st.sampled_from((1, 2, 4, 16))),
        seed=draw(_SEEDS),
    )


@st.composite
def _drafts(
    draw: st.DrawFn,
    config: RouterConfig,
    capabilities: Capabilities,
    recipes: Sequence[str],
    hidden_sizes: Sequence[int],
) -> Draft:
    choose = _chooser(draw)
    claims = [claim for claim in capabilities.claims if claim.covers(config)]
    parts = axes.choose_parts(choose, choose("claim", claims), config, capabilities.takes)
    tokens = choose("num_tokens", _tokens(config.num_experts, capabilities))
    recipe = choose("recipe", tuple(recipes))
    small = config.num_experts <= POOL and recipe != "near-group-ties"
    return Draft(
        recipe=recipe,
        seed=draw(_SEEDS),
        dtype=choose("dtype", capabilities.dtypes),
        tokens=tokens,
        hidden=_hidden(choose, config, tokens, hidden_sizes),
        parts=parts,
        bias=choose("bias", tuple(BIASES)) if parts.selection_bias != "none" else "zero",
        rows=_indices(draw, tokens) if tokens <= POOL else None,
        columns=_indices(draw, config.num_experts) if small else None,
        strided="strided" in capabilities.layouts and choose("layout", (0, 0, 0, 1)) == 1,
        given_logits=capabilities.takes == "logits",
    )


def _tokens(num_experts: int, capabilities: Capabilities) -> list[int]:
    most = min(BUDGET // num_experts, capabilities.limits.max_tokens or BUDGET)
    offered = [n for n in (*axes.TOKENS, *axes.MORE_TOKENS) if n <= most]
    return offered + [num_experts] * (num_experts <= most)


def _hidden(
    choose: axes.Choose, config: RouterConfig, tokens: int, offered: Sequence[int]
) -> int:
    most = max(1, 4 * BUDGET // max(tokens, config.num_experts))
    return choose("hidden_size", [n for n in offered if n <= most] or [min(offered)])


def _indices(draw: st.DrawFn, count: int) -> list[int]:
    return draw(st.lists(st.integers(0, POOL - 1), min_size=count, max_size=count))


def _chooser(draw: st.DrawFn) -> axes.Choose:
    def choose(name: str, offered: Sequence[Any]) -> Any:
        return offered[0] if len(offered) == 1 else draw(st.sampled_from(offered), label=name)

    return choose
