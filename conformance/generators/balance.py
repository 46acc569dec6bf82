"""Logits and chosen experts of a step: skewed loads, padding, several layers, and smaller ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from moe_routing.conformance.calls.balance import BalanceCase
from moe_routing.conformance.generators.axes import Choose
from moe_routing.conformance.generators.reducer import Reduction, subsets
from moe_routing.conformance.generators.sizes import Size
from moe_routing.implementations.balances import Balances
from moe_routing.implementations.permitted import listed
from moe_routing.reference.balance import BALANCE_WORDS, BalanceConfig, BalanceInputs
from moe_routing.reference.formats import Bools, Floats, Ids
from moe_routing.reference.routes import ABSENT

TOKENS = (1, 2, 3, 5, 8, 13, 33, 64, 257)
EXPERTS = (2, 3, 4, 5, 8, 16, 60, 257)
SLOTS = (1, 2, 3, 4, 8)
LAYERS = (1, 1, 2, 3)
RATES = (2.0**-10, 0.001, 2.0**-6)


def choose_balance_case(
    choose: Choose, balances: Balances, modes: Sequence[str] | None = None
) -> BalanceCase:
    """Return a case that ``balances`` claims, made by choices."""
    claimed = [mode for mode in modes or balances.mode if mode in balances.mode]
    words = {name: choose(name, getattr(balances, name)) for name in BALANCE_WORDS}
    words["mode"] = choose("mode", claimed or balances.mode)
    slots = [k for k in SLOTS if k in balances.top_k] or list((listed(balances.top_k) or (1,))[:2])
    experts = choose("experts", _within(EXPERTS, balances.max_experts))
    top_k = choose("top_k", [k for k in slots if k <= experts] or slots[:1])
    experts = max(experts, top_k)
    tokens = choose("tokens", _within(TOKENS, balances.max_tokens))
    layers = choose("layers", _within(LAYERS, balances.max_layers))
    padding = choose("padding", ("none", "some") if True in balances.padded else ("none",))
    absent = choose("absent", (False, True) if True in balances.absent else (False,))
    free = choose("ids", balances.ids) == "any"
    rng = np.random.default_rng(choose("seed", range(2**16)))
    config = BalanceConfig(num_experts=experts, rate=choose("rate", RATES), **words)
    logits = drawn_logits(rng, (layers, tokens, experts))
    ids = np.argsort(-logits, axis=2)[:, :, :top_k]
    if free or absent:
        skewed = rng.random(logits.shape) ** (1.0 + rng.permutation(experts))
        ids = np.argsort(-skewed, axis=2)[:, :, :top_k]
    if absent:
        ids = np.where(rng.random(ids.shape) < 0.3, ABSENT, ids)
    valid = np.ones(tokens, np.int64)
    if padding == "some":
        valid[rng.permutation(tokens)[: tokens // 3]] = 0
    bias = rng.integers(-512, 513, (layers, experts)) / 1024.0
    return case_of(config, logits, ids, valid, bias, recipe=padding)


def drawn_logits(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Draw logits of which no two of a token are alike, some experts far ahead of the others."""
    steps = np.argsort(rng.random(shape), axis=2) / 64.0
    return np.asarray(steps + rng.integers(-2, 3, (shape[0], 1, shape[2])) * 1.0 + _tiny(shape))


def _tiny(shape: tuple[int, ...]) -> Floats:
    """Return what tells experts apart whose logits are alike otherwise."""
    return np.asarray(np.arange(shape[2]) / 2.0**15)


def case_of(
    config: BalanceConfig,
    logits: Any,
    ids: Any,
    valid: Any = None,
    bias: Any = None,
    recipe: str = "constructed",
) -> BalanceCase:
    """Return the case of these arrays; without ``valid`` no token is padding, the bias 0."""
    logits = np.asarray(logits, np.float64)
    inputs = BalanceInputs(
        logits=logits.astype(np.float32),
        expert_ids=np.asarray(ids, np.int64),
        valid=np.ones(logits.shape[1], np.int64) if valid is None else np.asarray(valid, np.int64),
        bias=np.zeros((logits.shape[0], logits.shape[2]), np.float32)
        if bias is None
        else np.asarray(bias, np.float32),
    )
    return BalanceCase(config=config, inputs=inputs, recipe=recipe)


def _within(sizes: Sequence[int], most: int | None) -> list[int]:
    return [n for n in sizes if most is None or n <= most] or [most or 1]


# Other cases that a clause makes of one.


def reversed_tokens(case: BalanceCase) -> BalanceCase:
    """Return the case with its tokens in the opposite order."""
    return keep_tokens(case, np.arange(case.num_tokens)[::-1])


def doubled(case: BalanceCase) -> BalanceCase:
    """Return the case with every token twice."""
    return keep_tokens(case, np.repeat(np.arange(case.num_tokens), 2))


def keep_tokens(case: BalanceCase, kept: Ids) -> BalanceCase:
    """Return the case with these tokens, in this order."""
    inputs = case.inputs
    arrays: dict[str, Any] = {
        "logits": inputs.logits[:, kept],
        "expert_ids": inputs.expert_ids[:, kept],
        "valid": inputs.valid[kept],
    }
    return replace(case, inputs=replace(inputs, **arrays))


def keep_layers(case: BalanceCase, kept: Ids) -> BalanceCase:
    """Return the case with these layers alone. Errors: ``ValueError`` for none."""
    if not len(kept):
        raise ValueError("Cannot have L=0: a step has a layer")
    inputs = case.inputs
    arrays = {name: getattr(inputs, name)[kept] for name in ("logits", "expert_ids", "bias")}
    return replace(case, inputs=replace(inputs, **arrays))


def _tokens(case: BalanceCase) -> Iterator[BalanceCase]:
    for kept in subsets(case.num_tokens):
        if len(kept) and case.inputs.valid[kept].any():
            yield keep_tokens(case, kept)


def _layers(case: BalanceCase) -> Iterator[BalanceCase]:
    for kept in subsets(case.inputs.num_layers):
        if len(kept):
            yield keep_layers(case, kept)


def _used(case: BalanceCase) -> Iterator[BalanceCase]:
    """Yield the case without some of the experts that no token has."""
    inputs = case.inputs
    used: Bools = np.isin(np.arange(inputs.num_experts), inputs.expert_ids)
    kept = np.flatnonzero(used)
    for others in (kept, *(np.union1d(kept, some) for some in subsets(inputs.num_experts))):
        yield from _with_experts(case, others)


def _with_experts(case: BalanceCase, kept: Ids) -> Iterator[BalanceCase]:
    inputs = case.inputs
    if max(2, inputs.top_k) <= kept.size < inputs.num_experts:
        number = np.full(inputs.num_experts + 1, ABSENT)
        number[kept] = np.arange(kept.size)
        arrays = {
            "logits": inputs.logits[:, :, kept],
            "expert_ids": number[inputs.expert_ids],
            "bias": inputs.bias[:, kept],
        }
        config = replace(case.config, num_experts=int(kept.size))
        yield replace(case, config=config, inputs=replace(inputs, **arrays))


BALANCE_REDUCTIONS: tuple[Reduction, ...] = (_tokens, _layers, _used)
"""The reductions of a balance case, in the order in which they are tried."""

BALANCE_SIZES = (
    Size(name="T", count=lambda case: case.num_tokens, usual=4, keep=keep_tokens),
    Size(name="L", count=lambda case: case.inputs.num_layers, usual=1, keep=keep_layers),
)
"""The sizes of a balance case."""
