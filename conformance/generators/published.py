"""The sizes of shipped models: E, K, groups and H as they were published together."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import cache

from moe_routing.implementations import GroupRule, Limits
from moe_routing.reference import PRESETS, RouterConfig

Key = tuple[int, int, tuple[int, int] | None]
"""E, K and ``groups=(count, kept)``."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """E, K and ``groups=(count, kept)`` of a shipped model, and the widths H they came with."""

    num_experts: int
    top_k: int
    groups: tuple[int, int] | None
    widths: tuple[int, ...]

    @property
    def key(self) -> Key:
        """E, K and the groups, as ``sizes_of`` returns them."""
        return self.num_experts, self.top_k, self.groups

    def follows(self, rule: GroupRule | None) -> bool:
        """Return whether the groups, or that there are none, are as ``rule`` has them."""
        if rule is None or self.groups is None:
            return rule is None and self.groups is None
        return False in rule.from_each and rule.has_room(self.top_k, self.groups[1])

    def fits(
        self, rules: Sequence[GroupRule | None], limits: Limits, top_k: Container[int]
    ) -> bool:
        """Return whether a claim with these group ``rules`` and ``top_k`` has such a router."""
        return (
            self.top_k in top_k
            and any(self.follows(rule) for rule in rules)
            and not limits.router_refusals(self.num_experts, self.top_k)
            and not (self.groups and limits.group_refusals(self.num_experts, *self.groups))
        )


def sizes_of(config: RouterConfig) -> Key:
    """Return E, K and the groups' count and number kept."""
    groups = None if config.groups is None else (config.groups.count, config.groups.kept)
    return config.num_experts, config.top_k, groups


def _widths() -> dict[Key, tuple[int, ...]]:
    found: dict[Key, set[int]] = {}
    for preset in PRESETS.values():
        found.setdefault(sizes_of(preset.config), set()).add(preset.hidden_size)
    return {key: tuple(sorted(widths)) for key, widths in found.items()}


_WIDTHS = _widths()

PUBLISHED = tuple(
    Published(num_experts=key[0], top_k=key[1], groups=key[2], widths=_WIDTHS[key])
    for key in sorted(_WIDTHS, key=lambda key: (*key[:2], key[2] or (0, 0)))
)
"""The sizes of the presets, the smallest first."""


@cache
def published_for(
    rules: tuple[GroupRule | None, ...], limits: Limits, top_k: Container[int]
) -> list[Published]:
    """Return the published sizes that a claim with these ``rules`` and ``top_k`` covers."""
    return [sizes for sizes in PUBLISHED if sizes.fits(rules, limits, top_k)]


def published_widths(config: RouterConfig) -> tuple[int, ...]:
    """Return the widths H that were published with the sizes of ``config``; mostly none."""
    return _WIDTHS.get(sizes_of(config), ())
