"""Limits: the sizes of a routing call that a backend stops at, for every chapter that routes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice

from moe_routing.implementations.group_rule import GroupRule
from moe_routing.implementations.permitted import (
    ANY,
    AnyValue,
    Closed,
    check_values,
    counts,
    listed,
)
from moe_routing.reference import Groups, RouterConfig, RouterInputs
from moe_routing.reference.checks import require_count, shown

Numbers = tuple[int, ...] | range | AnyValue
"""The numbers that are permitted: some, a range, or ``ANY``."""

GROUPED = (
    "max_groups",
    "max_kept_groups",
    "min_group_size",
    "max_group_size",
    "max_kept_experts",
)
"""The limits that bound nothing but calls with groups."""

_LEAST = {"min_tokens": 0, "experts_multiple_of": 1, "min_group_size": 1}
_SETS = ("experts", "top_k")
_TRIES = 4096  # numbers of experts among which a first one that fits is searched


@dataclass(frozen=True, kw_only=True)
class Limits(Closed):
    """The sizes that a backend stops at; what is beyond one of them is not claimed.

    ``max_experts``, ``max_top_k`` and ``max_tokens`` are E, K and T at most, ``min_tokens`` is T
    at least, and ``experts_multiple_of`` divides E. ``experts`` and ``top_k`` list the only E and
    K of a kernel that is compiled for some, or are a range. Of calls with groups ``max_groups``
    bounds their number, ``max_kept_groups`` how many are kept, ``min_group_size`` and
    ``max_group_size`` the experts of one, and ``max_kept_experts`` those of all kept groups.
    Errors: ``ValueError`` naming the field.
    """

    max_experts: int | None = None
    max_top_k: int | None = None
    max_tokens: int | None = None
    min_tokens: int = 0
    experts_multiple_of: int = 1
    experts: Numbers = ANY
    top_k: Numbers = ANY
    max_groups: int | None = None
    max_kept_groups: int | None = None
    min_group_size: int = 1
    max_group_size: int | None = None
    max_kept_experts: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name in _SETS:
                kinds = (tuple, range, AnyValue)
                check = counts(f"Limits.{name}")
                check_values(f"Limits.{name}", value, check, "(8, 16), for example", kinds)
            elif value is not None or name in _LEAST:
                require_count(f"Limits.{name}", value, at_least=_LEAST.get(name, 1))
        for least, most in (("min_tokens", "max_tokens"), ("min_group_size", "max_group_size")):
            low, high = getattr(self, least), getattr(self, most)
            if high is not None and low > high:
                raise ValueError(f"Cannot have Limits.{least}={low} > Limits.{most}={high}")

    @property
    def bounds_groups(self) -> bool:
        """Whether any of the limits is about groups."""
        plain = {each.name: each.default for each in fields(self)}
        return any(getattr(self, name) != plain[name] for name in GROUPED)

    def refusals(self, config: RouterConfig, inputs: RouterInputs) -> list[str]:
        """Return the sizes of the call that are beyond these limits, one phrase each."""
        found = self.router_refusals(config.num_experts, config.top_k)
        if isinstance(config.groups, Groups):
            groups = config.groups
            found += self.group_refusals(config.num_experts, groups.count, groups.kept)
        tokens = inputs.num_tokens
        found += _above(("num_tokens", tokens, self.max_tokens))
        return found + _below(("num_tokens", tokens, self.min_tokens))

    def router_refusals(self, num_experts: int, top_k: int) -> list[str]:
        """Return which of E and K is beyond these limits, one phrase each."""
        found = _above(
            ("num_experts", num_experts, self.max_experts), ("top_k", top_k, self.max_top_k)
        )
        if num_experts % self.experts_multiple_of:
            found.append(f"num_experts={num_experts} % {self.experts_multiple_of} != 0")
        for name, size, permitted in (
            ("num_experts", num_experts, self.experts),
            ("top_k", top_k, self.top_k),
        ):
            if size not in permitted:
                found.append(f"{name}={size} is none of {shown(permitted)}")
        return found

    def group_refusals(self, num_experts: int, count: int, kept: int) -> list[str]:
        """Return what of E experts in ``count`` groups is beyond these limits, a phrase each."""
        size = num_experts // count
        found = _above(
            ("groups.count", count, self.max_groups),
            ("groups.kept", kept, self.max_kept_groups),
            ("experts_per_group", size, self.max_group_size),
            ("experts of the kept groups", kept * size, self.max_kept_experts),
        )
        return found + _below(("experts_per_group", size, self.min_group_size))

    def permits_experts(self, num_experts: int) -> bool:
        """Return whether E alone is within these limits."""
        within = num_experts <= (self.max_experts or num_experts)
        return within and not num_experts % self.experts_multiple_of and num_experts in self.experts

    def groupings(self, num_experts: int, least: int) -> Iterator[tuple[int, range]]:
        """Yield the counts of groups that E has, each with how many may be kept.

        Those kept hold ``least`` experts or more.
        """
        for count in range(1, min(num_experts, self.max_groups or num_experts) + 1):
            if num_experts % count == 0 and (kept := self._kept(num_experts, count, least)):
                yield count, kept

    def _kept(self, num_experts: int, count: int, least: int) -> range:
        size = num_experts // count
        if not self.min_group_size <= size <= (self.max_group_size or size):
            return range(0)
        most = min(count, self.max_kept_groups or count)
        if self.max_kept_experts is not None:
            most = min(most, self.max_kept_experts // size)
        return range(-(-least // size), most + 1)

    def holds(self, num_experts: int, least: int, *, grouped: bool) -> bool:
        """Return whether E holds ``least`` experts to select: in groups, where ``grouped``."""
        if num_experts < least or not self.permits_experts(num_experts):
            return False
        if not (grouped and self.bounds_groups):
            return True
        return next(self.groupings(num_experts, least), None) is not None

    def least_top_k(self, top_k: Numbers) -> int | None:
        """Return the least K within these limits that a claim of ``top_k`` has, or None."""
        for k in numbers_of(self.top_k, top_k):
            return k if k <= (self.max_top_k or k) else None
        return None

    def least_experts(self, least: int, *, grouped: bool) -> int | None:
        """Return the least E that holds ``least`` experts within these limits, or None."""
        step, only = self.experts_multiple_of, listed(self.experts)
        start = -(-least // step) * step
        each = range(start, start + _TRIES * step, step) if only is None else _ascending(only)
        tried = islice(each, _TRIES)
        return next((n for n in tried if self.holds(n, least, grouped=grouped)), None)

    def check_rules(self, who: str, rules: Iterable[GroupRule | None]) -> None:
        """Raise ``ValueError`` where groups are bounded, and a rule wants K that they divide.

        Whether there is any such call at all is then a search that nothing here makes.
        """
        if self.bounds_groups and any(rule is not None and rule.divides for rule in rules):
            raise ValueError(
                f"Cannot have {self.described()} with {who}, which has groups of top='K / kept': "
                "use 'K // kept', and list in top_k those K that you take"
            )

    def has_room(self, top_k: Numbers, *, grouped: bool) -> bool:
        """Return whether some call of a claim of ``top_k`` is within these limits."""
        least = self.least_top_k(top_k)
        return least is not None and self.least_experts(least, grouped=grouped) is not None

    def check_room(self, who: str, top_k: Numbers, *, grouped: bool) -> None:
        """Raise ``ValueError`` where none of what a claim covers is within these limits.

        ``grouped`` says that the claim covers calls with groups alone.
        """
        if self.has_room(top_k, grouped=grouped):
            return
        least = next(numbers_of(ANY, top_k))
        step, most = self.experts_multiple_of, self.max_experts
        room = {
            "max_experts": None if most is None else most // step * step,
            "max_top_k": self.max_top_k,
        }
        few = [name for name, size in room.items() if size is not None and size < least]
        limit = f"{few[0]}={getattr(self, few[0])}" if few else self.described()
        raise ValueError(
            f"Cannot have {limit} with {who}, which starts at K={least} of a "
            f"multiple of {step} experts{' in groups' * grouped}: no call is within both"
        )

    def described(self) -> str:
        """Return the limits that are set, as ``name=value``."""
        plain = {each.name: each.default for each in fields(self)}
        return ", ".join(f"{n}={shown(v)}" for n, v in vars(self).items() if v != plain[n])


def numbers_of(one: Numbers, other: Numbers) -> Iterator[int]:
    """Yield the numbers that both permit, ascending; 1 where both permit any."""
    some = [each for each in (listed(one), listed(other)) if each is not None]
    if not some:
        yield 1
        return
    short = min(some, key=len)  # the other may be a range without an end in sight
    yield from (n for n in _ascending(short) if n in one and n in other)


def _ascending(numbers: Sequence[int]) -> Iterable[int]:
    return numbers if isinstance(numbers, range) else sorted(numbers)


def _above(*sizes: tuple[str, int, int | None]) -> list[str]:
    return [f"{name}={n} > {most}" for name, n, most in sizes if most and n > most]


def _below(*sizes: tuple[str, int, int]) -> list[str]:
    return [f"{name}={n} < {least}" for name, n, least in sizes if n < least]
