"""Nonsense: configurations without a right answer, to test whether a backend rejects them."""

from __future__ import annotations

from functools import cache
from typing import Any

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.generators.construct import with_config
from moe_routing.reference import Groups


def bad_configs(case: Case) -> dict[str, Case]:
    """Return ``case`` with configurations that have no right answer, by what is wrong, in words."""
    config, experts = case.config, case.config.num_experts
    bad: dict[str, dict[str, Any]] = {
        f"top_k={experts + 1} > num_experts={experts}": {"top_k": experts + 1}
    }
    groups = config.groups
    if groups is not None and groups.kept < groups.count:
        left = groups.kept * config.experts_per_group
        bad[f"top_k={left + 1} > {left} experts left by {groups}"] = {"top_k": left + 1}
    if groups is not None and groups.from_each and groups.count > 1 and config.top_k < experts:
        words = f"top_k={config.top_k + 1} from each of {groups.count} groups"
        bad[words] = {"top_k": config.top_k + 1}
    if groups is not None and not groups.from_each:
        more = object.__new__(Groups)
        for name, value in {**vars(groups), "kept": groups.count + 1}.items():
            object.__setattr__(more, name, value)
        bad[f"Groups.kept={more.kept} > Groups.count={more.count}"] = {"groups": more}
    return {words: with_config(case, **changes) for words, changes in bad.items()}


@cache
def ragged_counts(num_experts: int) -> tuple[int, ...]:
    """Return the group counts that leave several experts per group, and a remainder."""
    return tuple(n for n in range(2, num_experts // 2 + 1) if num_experts % n)
