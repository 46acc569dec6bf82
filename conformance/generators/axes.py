"""Concrete values for the axes of a claim: drawn at random, or chosen for a purpose."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

from moe_routing.conformance.generators.published import published_for
from moe_routing.conformance.generators.ranges import (
    any_experts,
    any_slots,
    listed_experts,
    listed_slots,
)
from moe_routing.implementations import ANY, Capabilities, Claim, GroupRule, Limits
from moe_routing.implementations.contradictions import score_pairs
from moe_routing.implementations.permitted import AnyValue
from moe_routing.reference import Groups, Renormalize, RmsNorm, RouterConfig, SharedSlots
from moe_routing.reference.config import LeastPrecise

Choose = Callable[[str, Sequence[Any]], Any]
"""Picks one of the values offered for a named choice; the first is the plainest."""

CHOICES = (
    *("claim", "score and weights", "sizes", "num_experts", "groups", "top_k", "published"),
    *("groups.count", "groups.kept", "groups.top", "groups.fill", "groups.from_each"),
    *("dtypes", "logit ops"),
    *("renormalize", "scale", "softcap", "multiplier", "input norm"),
    *("optional arrays", "selection_bias", "num_tokens", "recipe", "seed", "dtype"),
    *("batched", "batch"),
    *(
        "shared_slots",
        "gate_dtype",
        "hidden_size",
        "bias",
        "gate_bias",
        "columns",
        "column",
        "layout",
    ),
)
"""The names of all choices of a routing case: what ``Focus.offers`` and ``wants`` may name."""

_APART = 7  # how many times listed sizes are drawn, each alone, for each time any are, or a model's
_PROPER = 3  # how many times several groups of several are offered for each time one or E are
TOKENS = (1, 2, 3, 0, 7, 8, 9, 15, 16, 17, 45, 63)
MORE_TOKENS = (256, 257, 1025, 2049, 4097)
KERNEL_SIZES = tuple(n + d for n in [2**p for p in range(3, 14)] for d in (-1, 0, 1))
"""Where kernels change their path: powers of two from 8 to 8,192, and one off."""

HIDDEN_SIZES = (1, 2, 3, 4, 8, 16, 33, 64)
PUBLISHED_HIDDEN_SIZES = (2048, 4096, 7168)
SCALES = (1.0, 2.5, 1.0, 1.5, 0.0, -1.0, 16.0)
RENORMALIZATIONS = (
    None,
    Renormalize(),
    None,
    Renormalize(eps=1e-20),
    Renormalize(eps=1e-6),
    Renormalize(floor=1e-12),
    Renormalize(order=2.0),
    Renormalize(order=3.0),
    Renormalize(eps=0.25, floor=0.5, order=2.0),
)
SOFTCAPS = (30.0, 5.0, 1.0)
MULTIPLIERS = (0.1768, 0.5, 2.0, -1.0)
INPUT_NORMS = (RmsNorm(), RmsNorm(eps=0.25))
SHARED_SLOTS = (
    *(None,) * 5,
    *(
        SharedSlots(),
        SharedSlots(weight=0.4),
        SharedSlots(count=2),
        SharedSlots(count=3, weight=0.5),
    ),
)

_ARRAYS = ("gate_bias", "gate_delta", "per_expert_scale")
_PLAIN = 6  # how many times no optional part is offered, for each time every one is


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Which optional arrays the inputs have, and where the selection bias is found."""

    selection_bias: str = "none"
    gate_bias: bool = False
    gate_delta: bool = False
    per_expert_scale: bool = False
    expert_table: bool = False
    gate_dtype: LeastPrecise = "input"


def require_choices(argument: str, names: Iterable[str]) -> None:
    """Raise ``ValueError`` where ``argument`` names a choice that is never made."""
    for name in names:
        if name not in CHOICES:
            near = difflib.get_close_matches(name, CHOICES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(CHOICES)}"
            raise ValueError(f"{argument} names the choice {name!r}, which is never made; {hint}")


def choose_config(choose: Choose, claim: Claim, capabilities: Capabilities) -> RouterConfig:
    """Return a configuration that ``claim`` covers, valid by construction."""
    limits, hashed = capabilities.limits, False not in claim.expert_table
    score, weights_from = choose("score and weights", score_pairs(vars(claim)))
    num_experts, top_k, groups = _sizes(choose, claim, limits, hashed)
    dtypes = product(claim.logits_dtype, claim.scores_dtype, claim.weights_dtype)
    logits_dtype, scores_dtype, weights_dtype = choose("dtypes", list(dtypes))
    norm = () if capabilities.takes == "logits" else ("input_norm",)
    ops = choose("logit ops", _part_sets(claim, ("logit_softcap", "logit_multiplier", *norm)))
    return RouterConfig(
        num_experts=num_experts,
        top_k=top_k,
        score=score,
        weights_from=weights_from,
        groups=groups,
        renormalize=choose("renormalize", _values(claim.renormalize, RENORMALIZATIONS)),
        scale=choose("scale", _values(claim.scale, SCALES)),
        logit_softcap=choose("softcap", SOFTCAPS) if "logit_softcap" in ops else None,
        logit_multiplier=choose("multiplier", MULTIPLIERS) if "logit_multiplier" in ops else 1.0,
        logits_dtype=logits_dtype,
        scores_dtype=scores_dtype,
        weights_dtype=weights_dtype,
        input_norm=choose("input norm", INPUT_NORMS) if "input_norm" in ops else None,
        shared_slots=_shared_slots(choose, claim),
    )


def _shared_slots(choose: Choose, claim: Claim) -> SharedSlots | None:
    """Return the shared slots: what nearly all claim, none, is no choice."""
    offered = _values(claim.shared_slots, SHARED_SLOTS)
    chosen: SharedSlots | None = (
        offered[0] if len(offered) == 1 else choose("shared_slots", offered)
    )
    return chosen


def choose_parts(choose: Choose, claim: Claim, config: RouterConfig, takes: str) -> Parts:
    """Return optional arrays that ``claim`` covers with ``config``.

    Hash routing selects nothing, so it comes without selection bias and groups; logits
    that are inputs come without anything that would change them.
    """
    names = ("per_expert_scale",) if takes == "logits" else _ARRAYS
    sets = _part_sets(claim, names)
    plain = config.groups is None and config.weights_from != "masked_scores"
    if plain and True in claim.expert_table and "none" in claim.selection_bias:
        hashed = [parts | {"expert_table"} for parts in (sets[0], sets[-1])]
        sets = [*sets, *hashed] if False in claim.expert_table else hashed
    parts = choose("optional arrays", sets)
    table = "expert_table" in parts
    return Parts(
        selection_bias="none" if table else choose("selection_bias", claim.selection_bias),
        expert_table=table,
        gate_dtype=choose_gate_dtype(choose, claim),
        **{name: name in parts for name in _ARRAYS},
    )


def choose_gate_dtype(choose: Choose, claim: Claim) -> LeastPrecise:
    """Return the dtype of the gate: what nearly all claim alone is no choice."""
    offered: tuple[Any, ...] = claim.gate_dtype
    chosen: LeastPrecise = offered[0] if len(offered) == 1 else choose("gate_dtype", offered)
    return chosen


def _part_sets(claim: Claim, names: Sequence[str]) -> list[set[str]]:
    """Return the sets of optional parts to draw from: mostly none, each alone, and all."""
    forced = {name for name in names if False not in getattr(claim, name)}
    free = [name for name in names if len(set(getattr(claim, name))) > 1]
    alone = [forced | {name} for name in free]
    return [forced] * (_PLAIN if free else 1) + alone + [forced | set(free)] * (len(free) > 1)


def choose_claim(choose: Choose, capabilities: Capabilities) -> Claim:
    """Return one of the claims."""
    claim: Claim = choose("claim", capabilities.claims)
    return claim


def _sizes(
    choose: Choose, claim: Claim, limits: Limits, hashed: bool
) -> tuple[int, int, Groups | None]:
    """Return E, K and the groups: each drawn independently, or all those of a shipped model."""
    rules = (None,) if hashed else claim.groups
    least = limits.least_top_k(claim.top_k) or 1
    fitting = published_for(rules, limits, claim.top_k)
    kinds = (*("apart",) * _APART, "any", *("published",) * bool(fitting))
    if (kind := choose("sizes", kinds)) != "published":
        experts = any_experts if kind == "any" else listed_experts
        slots = any_slots if kind == "any" else listed_slots
        offered = experts(limits, least, grouped=None not in rules)
        num_experts = choose("num_experts", offered)
        rule = choose("groups", _fitting_rules(rules, limits, num_experts, least))
        if rule is None:
            return num_experts, choose("top_k", slots(num_experts, limits, claim)), None
        several = partial(slots, limits=limits, claim=claim)
        top_k, groups = _in_groups(choose, rule, num_experts, limits, least, several)
        return num_experts, top_k, groups
    whole = choose("published", fitting)
    if whole.groups is None:
        return whole.num_experts, whole.top_k, None
    rule = choose("groups", [rule for rule in rules if whole.follows(rule)])
    groups = _groups(choose, rule, whole.num_experts, whole.top_k, *whole.groups)
    return whole.num_experts, whole.top_k, groups


def _fitting_rules(
    rules: Sequence[GroupRule | None], limits: Limits, num_experts: int, least: int
) -> Sequence[GroupRule | None]:
    """Return the rules that E experts can follow within the limits."""
    if not limits.bounds_groups or limits.holds(num_experts, least, grouped=True):
        return rules
    return [None]


def _in_groups(
    choose: Choose,
    rule: GroupRule,
    num_experts: int,
    limits: Limits,
    least: int,
    slots: Callable[[int], Sequence[int]],
) -> tuple[int, Groups]:
    """Return K, and groups of equal size under ``rule``; those kept hold K experts or more.

    K is chosen first where the score of a group follows from it, and is then enough for one.
    """
    kinds = (
        *[each for each in rule.from_each if not each] * _PROPER,
        *[True] * (True in rule.from_each),
    )
    if True in kinds and choose("groups.from_each", kinds):
        return _from_each(choose, num_experts, limits, slots)
    fitting = dict(limits.groupings(num_experts, least))
    if rule.follows_top_k:
        shares = {n: _sharing(rule, num_experts // n, kept, slots) for n, kept in fitting.items()}
        fitting = {n: kept for n, kept in fitting.items() if next(shares[n], None)}
    proper = [n for n in fitting if 1 < n < num_experts]
    ends = [n for n in fitting if n == num_experts > 1]
    count = choose("groups.count", (*[n for n in fitting if n == 1], *proper * _PROPER, *ends))
    if rule.follows_top_k:
        sharing = dict(_sharing(rule, num_experts // count, fitting.get(count, ()), slots))
        kept = choose("groups.kept", [*sharing])
        top_k = choose("top_k", sharing.get(kept, ()))
        return top_k, _groups(choose, rule, num_experts, top_k, count, kept)
    kept = choose("groups.kept", fitting.get(count, range(1, count + 1)))
    groups = _groups(choose, rule, num_experts, 0, count, kept)
    return choose("top_k", slots(kept * num_experts // count)), groups


def _from_each(
    choose: Choose, num_experts: int, limits: Limits, slots: Callable[[int], Sequence[int]]
) -> tuple[int, Groups]:
    """Return K, and groups that each give a share of it; most often some of several of several."""
    sharing = {
        n: [k for k in slots(num_experts) if k % n == 0]
        for n, kept in limits.groupings(num_experts, num_experts)
        if n in kept
    }
    fitting = [n for n, offered in sharing.items() if offered]
    proper = [n for n in fitting if 1 < n < num_experts]
    count = choose("groups.count", [*proper * _PROPER, *fitting] if proper else fitting)
    kept = choose("groups.kept", (count,))
    offered = sharing.get(count, [])
    some = [k for k in offered if k < num_experts]
    top_k = choose("top_k", [*some * _PROPER, *offered])
    return top_k, Groups(count=count, kept=kept, from_each=True)


def _sharing(
    rule: GroupRule, size: int, kept: Iterable[int], slots: Callable[[int], Sequence[int]]
) -> Iterator[tuple[int, Sequence[int]]]:
    """Yield how many groups of ``size`` may be kept, each with the K that have a top there."""
    for n in kept:
        if offered := rule.with_room(slots(n * size), n):
            yield n, offered


def _groups(
    choose: Choose, rule: GroupRule, num_experts: int, top_k: int, count: int, kept: int
) -> Groups:
    tops = rule.tops(top_k, kept) or _values(rule.top, (2, 1, 3, num_experts // count))
    top = choose("groups.top", tops)
    fill = choose("groups.fill", rule.fill)
    return Groups(count=count, kept=kept, top=top, fill=fill)


def _values(permitted: Any, offered: Sequence[Any]) -> Sequence[Any]:
    if permitted is ANY:
        return offered
    if isinstance(permitted, AnyValue):
        return [value for value in offered if value in permitted]
    chosen: Sequence[Any] = permitted
    return chosen
