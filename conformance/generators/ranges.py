"""Ranges: the numbers of experts and of slots that are offered, the smallest first.

Most draws take numbers that are listed: small ones, published ones, and those at which kernels
change their path. The others take any number in the range, so that none is out of reach.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

from moe_routing.implementations import Claim, Limits
from moe_routing.implementations.limits import Numbers
from moe_routing.implementations.permitted import listed
from moe_routing.reference import PRESETS

EXPERTS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 17, 24, 32, 33, 60, 64)
MORE_EXPERTS = (96, 128, 160, 192, 256, 257, 288, 320, 384, 512, 576, 768, 896, 1024, 1280)
_OFTEN = 4  # how many times the small sizes are offered for each time that the large ones are

TOP_K = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 18, 22, 32, 33)

MOST_EXPERTS = 1280
"""The most experts that are drawn: an identity gate of more costs tens of milliseconds."""

_MOST_SLOTS = 64  # every K up to it, and powers of two above
_TILES = (32, 64, 96, 128, 192, 256)
_OCTAVE = 1024  # how often each octave of numbers of experts is offered, or each number once
_AT_BOUNDARIES = 16


def _one_off(numbers: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted({n + d for n in numbers for d in (-1, 0, 1) if n + d > 0}))


_POWERS = _one_off(2**power for power in range(12))

BOUNDARIES = _one_off(
    {
        *(2**power for power in range(12)),
        *(tile * count for tile in _TILES for count in range(1, 7)),
        *(preset.config.num_experts for preset in PRESETS.values()),
    }
)
"""Powers of two, whole tiles and published numbers of experts, and one off."""


@cache
def listed_experts(limits: Limits, least: int, *, grouped: bool = False) -> tuple[int, ...]:
    """Return the listed E that ``limits`` permit, from ``least`` on, in groups if ``grouped``.

    Where the limits list E themselves, all of those.
    """
    numbers = EXPERTS * _OFTEN + MORE_EXPERTS
    if listed(limits.experts) is not None:
        numbers = tuple(n for n in range(1, MOST_EXPERTS + 1) if n in limits.experts)
    return _fitting(numbers, limits, least, grouped=grouped)


@cache
def any_experts(limits: Limits, least: int, *, grouped: bool = False) -> tuple[int, ...]:
    """Return every E that ``limits`` permit from ``least`` on, ascending.

    Small ones and those at boundaries are there more often.
    """
    numbers = range(1, MOST_EXPERTS + 1)
    often = [n for n in numbers for _ in range(max(1, _OCTAVE >> n.bit_length() - 1))]
    often += [n for n in BOUNDARIES if n in numbers] * _AT_BOUNDARIES
    return _fitting(sorted(often), limits, least, grouped=grouped)


def _fitting(
    numbers: Sequence[int], limits: Limits, least: int, *, grouped: bool
) -> tuple[int, ...]:
    hold = {n for n in {*numbers} if limits.holds(n, least, grouped=grouped)}
    offered = tuple(n for n in numbers if n in hold)
    if offered:
        return offered
    larger = limits.least_experts(least, grouped=grouped)
    return () if larger is None else (larger,)


def listed_slots(left: int, limits: Limits, claim: Claim) -> Sequence[int]:
    """Return the listed K that fit ``left`` experts and the claim."""
    return _slots(TOP_K, left, limits, claim.top_k)


def any_slots(left: int, limits: Limits, claim: Claim) -> Sequence[int]:
    """Return every K up to 64 that fits ``left`` and the claim, and larger powers of two."""
    return _slots(_ANY_SLOTS, left, limits, claim.top_k)


_ANY_SLOTS = (*range(1, _MOST_SLOTS + 1), *_POWERS)


@cache
def _slots(numbers: tuple[int, ...], left: int, limits: Limits, top_k: Numbers) -> tuple[int, ...]:
    most = min(left, limits.max_top_k or left)
    offered = {*numbers, left - 1, left, limits.least_top_k(top_k) or 1}
    return tuple(sorted(k for k in offered if 1 <= k <= most and k in top_k and k in limits.top_k))
