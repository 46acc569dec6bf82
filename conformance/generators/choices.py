"""Choices: whole cases, each of whose parts is one of a series of choices.

The chooser decides what is drawn: Hypothesis, choice by choice, or a seed (``seeded``). The
numbers are left to seeded NumPy: choosing every element is slow, and a bare seed does not
shrink. Choices are ordered plainest first, since that is where shrinking ends.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.calls.shared_experts import SharedCase
from moe_routing.conformance.generators import axes
from moe_routing.conformance.generators.construct import take_tokens
from moe_routing.conformance.generators.inputs import POOL, Draft, make_inputs
from moe_routing.conformance.generators.published import published_widths
from moe_routing.conformance.generators.recipes import BIASES, GATE_BIASES, RECIPES
from moe_routing.conformance.generators.shared import make_shared_case
from moe_routing.implementations import Capabilities
from moe_routing.reference import RouterConfig
from moe_routing.reference.shared_experts import SHARED_KINDS

BUDGET = 2**14
"""The most numbers in a case's logits, ``T * E``, so that a case takes milliseconds."""

MANY_EXPERTS = 64
"""The experts from which few tokens are within the budget, so that some come in batches."""

BATCHED = 2**18
"""The most numbers in a batch's logits: few tokens, again and again, whose verdicts are cheap."""

GATE_BUDGET = 2**19
"""The most numbers in a case's hidden states, and in its gate."""

IDENTITY_LIMIT = 128
"""The most experts for which logits are drawn as a table, if a recipe with a gate is possible."""

_SEEDS = range(2**16)
_LAYOUTS = ("rows",) * 6 + ("hidden", "gate_weight")
_GATE_BIASES = ("quarters",) * len(GATE_BIASES) + tuple(GATE_BIASES)
_DRAWN_APART = ("num_experts", "top_k", "groups.count", "groups.kept")

Offers = Mapping[str, Callable[[Sequence[Any]], Sequence[Any]]]


@dataclass(frozen=True, kw_only=True)
class Focus:
    """The cases that a clause draws: recipes, hidden sizes, biases, and a filter for any choice.

    ``offers`` filters, by the names of the choices in ``axes``, what is offered; a filter
    that leaves nothing is not applied. Errors: ``ValueError`` for a choice that is never made.
    """

    recipes: tuple[str, ...] = tuple(RECIPES)
    hidden_sizes: tuple[int, ...] = axes.HIDDEN_SIZES
    biases: tuple[str, ...] = tuple(BIASES)
    offers: Offers = field(default_factory=dict)

    def __post_init__(self) -> None:
        axes.require_choices("Focus.offers", self.offers)


def seeded(seed: int) -> axes.Choose:
    """Return a chooser whose choices follow from ``seed``."""
    stream = random.Random(seed)
    return lambda name, offered: offered[int(stream.random() * len(offered))]


def choose_case(choose: axes.Choose, capabilities: Capabilities, focus: Focus) -> Case:
    """Return the case that ``choose`` makes; every part of it is one of its choices."""
    choose = narrowed_by(choose, focus.offers)
    config = choose_router(choose, capabilities)
    draft = choose_draft(choose, config, capabilities, focus)
    return Case(config=config, inputs=make_inputs(config, draft), recipe=draft.recipe)


def choose_call(choose: axes.Choose, capabilities: Capabilities, focus: Focus) -> Case:
    """Return the case that ``choose`` makes, or, where experts are many, a batch of its tokens.

    Half of those whose experts the budget lets have few tokens: kernels take another path for
    many tokens beside many experts. A clause that chooses its number of tokens has none.
    """
    case = choose_case(choose, capabilities, focus)
    sizes = [] if "num_tokens" in focus.offers else _batches(case, capabilities)
    if not sizes or choose("batched", (0, 1)) == 0:
        return case
    return take_tokens(case, np.arange(choose("batch", sizes)) % case.inputs.num_tokens)


def _batches(case: Case, capabilities: Capabilities) -> list[int]:
    """Return the sizes of batches of a case: those that kernels switch on, within the budgets."""
    inputs, experts, most = case.inputs, case.config.num_experts, capabilities.limits.max_tokens
    if not inputs.num_tokens or experts < MANY_EXPERTS:
        return []
    width = 1 if inputs.hidden is None else inputs.hidden_size
    most = min(BATCHED // experts, GATE_BUDGET // width, most or BATCHED)
    return [n for n in axes.KERNEL_SIZES if inputs.num_tokens < n <= most]


def choose_shared_case(
    choose: axes.Choose,
    dtypes: Sequence[str],
    *,
    kinds: Sequence[str] = SHARED_KINDS,
    gated: Sequence[bool] = (False, True),
) -> SharedCase:
    """Return the shared-expert call that ``choose`` makes."""
    kind = choose("kind", kinds)
    has_gate = kind != "none" and choose("gated", gated)
    return make_shared_case(
        kind=kind,
        gated=has_gate,
        zero_gate=has_gate and choose("gate logits", ("any", "any", "any", "zero")) == "zero",
        dtype=choose("dtype", dtypes),
        tokens=choose("num_tokens", (1, 2, 3, 0, 7, 17, 33, 65)),
        hidden=choose("hidden_size", (1, 2, 4, 8, 33)),
        width=choose("width", (1, 2, 4, 16, 17, 64)),
        seed=choose("seed", _SEEDS),
    )


def choose_router(choose: axes.Choose, capabilities: Capabilities) -> RouterConfig:
    """Return the configuration that ``choose`` makes, from one of the claims."""
    claim = axes.choose_claim(choose, capabilities)
    return axes.choose_config(choose, claim, capabilities)


def choose_draft(
    choose: axes.Choose, config: RouterConfig, capabilities: Capabilities, focus: Focus
) -> Draft:
    """Return the draft of inputs that ``choose`` makes, claimed together with ``config``."""
    claims = [claim for claim in capabilities.claims if claim.covers(config)]
    parts = axes.choose_parts(choose, choose("claim", claims), config, capabilities.takes)
    tokens = choose("num_tokens", _tokens(config.num_experts, capabilities))
    recipe = choose("recipe", _recipes(config, focus))
    layouts = _LAYOUTS if "strided" in capabilities.layouts else _LAYOUTS[:1]
    return Draft(
        recipe=recipe,
        seed=choose("seed", _SEEDS),
        dtype=choose("dtype", capabilities.dtypes),
        tokens=tokens,
        hidden=_hidden(choose, config, tokens, focus.hidden_sizes),
        parts=parts,
        bias=choose("bias", focus.biases) if parts.selection_bias != "none" else "zero",
        gate_bias=choose("gate_bias", _GATE_BIASES) if parts.gate_bias else "quarters",
        columns=_columns(choose, config.num_experts, recipe),
        layout=choose("layout", layouts),
        given_logits=capabilities.takes == "logits",
    )


def _columns(choose: axes.Choose, num_experts: int, recipe: str) -> list[int] | None:
    """Return indices into the pool of experts, for a third of the cases with few enough."""
    pooled = choose("columns", (0, 0, 1)) == 1 and recipe != "near-group-ties"
    if not pooled or num_experts > POOL:
        return None
    return [choose("column", range(POOL)) for _ in range(num_experts)]


def _recipes(config: RouterConfig, focus: Focus) -> Sequence[str]:
    """Return the recipes to draw from; an identity gate of many experts costs E * E."""
    gates = tuple(name for name in focus.recipes if RECIPES[name].gate is not None)
    return gates if gates and config.num_experts > IDENTITY_LIMIT else focus.recipes


def _tokens(num_experts: int, capabilities: Capabilities) -> list[int]:
    limits = capabilities.limits
    most, least = min(BUDGET // num_experts, limits.max_tokens or BUDGET), limits.min_tokens
    offered = [n for n in axes.TOKENS * 4 + axes.MORE_TOKENS if least <= n <= most]
    return offered + [num_experts] * (least <= num_experts <= most) or [least]


def _hidden(choose: axes.Choose, config: RouterConfig, tokens: int, offered: Sequence[int]) -> int:
    most = max(1, GATE_BUDGET // max(tokens, config.num_experts))
    published = published_widths(config)
    sizes = [n for n in (*offered, *published * len(offered)) if n <= most]
    size: int = choose("hidden_size", sizes or [min(offered)])
    return size


def narrowed_by(choose: axes.Choose, offers: Offers) -> axes.Choose:
    """Return a chooser that offers less; published sizes only where no size is filtered."""
    if not {*offers}.isdisjoint(_DRAWN_APART):
        apart = {"sizes": lambda offered: [kind for kind in offered if kind != "published"]}
        offers = {**apart, **offers}

    def narrowed(name: str, offered: Sequence[Any]) -> Any:
        return choose(name, offers[name](offered) or offered if name in offers else offered)

    return narrowed if offers else choose
