"""Scenes: a table of logits that shows one thing, fitted to a backend's limits and its K."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.implementations import Capabilities, Claim, Limits
from moe_routing.implementations.limits import Numbers, numbers_of
from moe_routing.implementations.permitted import listed
from moe_routing.reference.formats import BFLOAT16

_OFF, _APART = 1.0 / 16.0, 0.25
"""The distance of added experts from the others, as a share of those but at least 1; and from
each other, as a share of that distance."""

_PER_EXPERT = ("gate_bias", "gate_delta", "hidden_scale", "per_expert_scale", "selection_bias")
"""Arrays whose every axis is as long as there are experts; the gate is an identity."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Logits ``[T, E]``, the optional arrays that go with them by field name, and K of E.

    ``groups`` is ``(count, kept)`` or None. A scene of more experts leaves the present ones
    where they are in their groups; new ones follow.
    """

    logits: npt.NDArray[np.float32]
    top_k: int
    groups: tuple[int, int] | None
    arrays: Mapping[str, npt.ArrayLike]

    @property
    def sizes(self) -> tuple[int, int]:
        """E and K."""
        return self.logits.shape[1], self.top_k

    def within(self, limits: Limits) -> Scene:
        """Return the scene with tokens and experts cut off until ``limits`` hold.

        With groups, experts are cut off only until all groups are of one size. Too few tokens
        are repeated.
        """
        experts, number = self.logits.shape[1], len(self.logits)
        tokens: slice | npt.NDArray[np.int64] = slice(limits.max_tokens)
        if 0 < number < limits.min_tokens:
            tokens = np.arange(limits.min_tokens) % number
        fits = slice(experts - experts % self.groups[0] if self.groups else limits.max_experts)

        def cut(name: str, values: npt.ArrayLike) -> npt.ArrayLike:
            if name in _PER_EXPERT:
                return np.asarray(values)[(fits,) * np.ndim(values)]
            return np.asarray(values)[tokens] if name == "token_ids" else values

        arrays = {name: cut(name, values) for name, values in self.arrays.items()}
        return replace(self, logits=self.logits[tokens][:, fits], arrays=arrays)

    def stepped(self, limits: Limits, *, grouped: bool) -> Iterator[Scene]:
        """Yield the scene with losing experts in every group until ``limits`` permit E.

        They permit its groups as well, or one group of all where it is ``grouped``. Nothing is
        yielded where no number of them helps.
        """
        count = self.groups[0] if self.groups else 1
        size = self.logits.shape[1] // count
        least = limits.min_group_size if grouped or self.groups else 1
        for more in range(max(least - size, 0), _reach(limits, size, least)):
            if limits.permits_experts(count * (size + more)):
                yield self._with_losers(more) if more else self
                return

    def selecting(self, top_k: int) -> Iterator[Scene]:
        """Yield scenes of a greater ``top_k``: without more experts, with winners, with losers.

        Winners do not move the cut of the selection; losers do not change which experts win.
        """
        more, wide = top_k - self.top_k, self._with_routes(top_k)
        if top_k <= self.logits.shape[1]:
            yield wide
        if self.groups is None:
            yield wide._with_winners(more)
        yield wide._with_losers(more)

    def _with_routes(self, top_k: int) -> Scene:
        """Return the scene with ``top_k`` slots, and as many ids in each row of its table."""
        scene = replace(self, top_k=top_k)
        if "expert_table" not in self.arrays:
            return scene
        size = max(self.logits.shape[1], top_k)
        table = _lengthened(np.asarray(self.arrays["expert_table"]), top_k, size)
        return replace(scene, arrays={**self.arrays, "expert_table": table})

    def _with_winners(self, more: int) -> Scene:
        """Return the scene, which has no groups, with ``more`` experts above all in each row."""
        finite = np.where(np.isfinite(self.logits), self.logits, -np.inf)
        best = finite.max(axis=1, initial=-np.inf, keepdims=True)
        best = np.where(np.isneginf(best), 0.0, best)
        off = np.maximum(np.abs(best) * _OFF, 1.0)
        return self._grown(more, best + off * (1.0 + _APART * np.arange(more)), np.max)

    def _with_losers(self, more: int) -> Scene:
        """Return the scene with ``more`` experts in each group, below all present ones."""
        finite = np.where(np.isfinite(self.logits), self.logits, np.nan)
        low = np.nanmin(finite, initial=0.0)
        return self._grown(more, low - max(abs(low) * _OFF, 1.0), np.min)

    def _grown(self, more: int, logits: npt.ArrayLike, fill: Callable[..., Any]) -> Scene:
        """Return the scene with ``more`` experts after those of each group.

        Their logits are rounded to what every dtype holds, and NaN where all of a row are;
        their biases are ``fill`` of the present ones; their scales are 1.
        """
        count = self.groups[0] if self.groups else 1
        old = np.arange(self.logits.shape[1]).reshape(count, -1)
        homes = (old + more * np.arange(count)[:, None]).ravel()
        size = old.size + count * more

        def grown(name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            if name == "gate_delta":
                square = np.zeros((size, size), np.float32)
                square[np.ix_(homes, homes)] = values
                return square
            result = np.full(size, 1.0 if name.endswith("_scale") else fill(values), np.float32)
            result[homes] = values
            return result

        arrays = {
            name: grown(name, np.asarray(values)) if name in _PER_EXPERT else values
            for name, values in self.arrays.items()
        }
        table = np.empty((len(self.logits), size), np.float32)
        table[:] = np.where(np.isnan(self.logits).all(axis=1, keepdims=True), np.nan, 0.0)
        table[:, np.setdiff1d(np.arange(size), homes)] += BFLOAT16.round(logits)
        table[:, homes] = self.logits
        return replace(self, logits=table, arrays=arrays)


def _reach(limits: Limits, size: int, least: int) -> int:
    """Return how many experts a group of ``size`` may have to be given, and one more."""
    step, only = limits.experts_multiple_of, listed(limits.experts)
    if only is None:
        return max(least - size, 0) + step
    return max(max(only[-1:] if isinstance(only, range) else only) - size, 0) + 1


def _lengthened(table: npt.NDArray[Any], top_k: int, num_experts: int) -> npt.NDArray[Any]:
    """Return a table of experts ``[V, top_k]``: each row, then the last experts that it lacks."""
    longer = np.zeros((len(table), top_k), np.int64)
    held = min(table.shape[1], top_k)
    longer[:, :held] = table[:, :held]
    ends = np.full(len(table), held)
    for expert in reversed(range(num_experts)):
        short = np.flatnonzero((ends < top_k) & (table != expert).all(axis=1))
        longer[short, ends[short]] = expert
        ends[short] += 1
    return longer


def scenes_for(
    scene: Scene, claim: Claim, capabilities: Capabilities, *, exactly: bool = False
) -> Iterator[Scene]:
    """Yield ``scene`` in the forms that ``claim`` covers, the most similar first.

    Where the claim does not have its K, the next greater one is taken; the caller has to
    check that the result still shows what it is for. With ``exactly``, E and K stay.
    """
    limits, sizes = capabilities.limits, scene.sizes
    scene, top_k = scene.within(limits), _least_from(scene.top_k, claim.top_k, limits.top_k)
    if top_k is None or not scene.logits.shape[1]:
        return
    if exactly:
        yield from [scene] if (scene.sizes, top_k) == (sizes, scene.top_k) else []
        return
    for each in (scene,) if top_k == scene.top_k else scene.selecting(top_k):
        yield from each.stepped(limits, grouped=None not in claim.groups)


def _least_from(wanted: int, permitted: Numbers, within: Numbers) -> int | None:
    """Return the least of ``permitted`` that is at least ``wanted`` and is ``within``, or None."""
    if wanted in permitted and wanted in within:
        return wanted
    return next((top_k for top_k in numbers_of(permitted, within) if top_k > wanted), None)


def fitting_experts(capabilities: Capabilities, wanted: int) -> int:
    """Return ``wanted``, or the nearest number of experts within limits, above it if possible."""
    limits = capabilities.limits
    above = limits.least_experts(wanted, grouped=False)
    below = (n for n in range(wanted, 0, -1) if limits.permits_experts(n))
    return next(below, wanted) if above is None else above
