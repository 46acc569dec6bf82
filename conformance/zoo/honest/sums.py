"""Honest variants in how sums are made: every order, every grouping, other batches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from moe_routing.conformance.zoo.residents import ROUTED, WHOLE, honest
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.stages import gate_logits, product
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.implementations import Capabilities

Product = Callable[[Array, Array], Array]

_FEW = 2**11
"""The number of logits up to which all products are held in memory: a loop has a slow start."""

_MANY = 64
"""The number of rows from which some are looked for that are the same."""


def in_order(x: Array, a: Array) -> Array:
    """Add up the products one column after another."""
    if len(x) * len(a) <= _FEW:
        return np.add.accumulate(x[:, None] * a, axis=2)[:, :, -1].copy()
    return _of_each_row(x, a, _in_order)


def _in_order(x: Array, a: Array) -> Array:
    z, products = np.zeros((2, len(x), len(a)), np.float32)
    for left, right in zip(x.T, a.T, strict=True):
        np.multiply(left[:, None], right, out=products)
        z += products
    return z


def fused(x: Array, a: Array) -> Array:
    """Add each product unrounded, as a fused multiply-add does."""
    return _of_each_row(x, a, _fused)


def _fused(x: Array, a: Array) -> Array:
    z, sums = np.zeros((len(x), len(a)), np.float32), np.empty((len(x), len(a)))
    for left, right in zip(x.T.astype(np.float64), a.T.astype(np.float64), strict=True):
        np.multiply(left[:, None], right, out=sums)
        np.add(z, sums, out=sums)
        np.copyto(z, sums, casting="same_kind")
    return z


def _of_each_row(x: Array, a: Array, multiply: Product) -> Array:
    """Multiply the rows that differ, where many do not: of a batch that repeats its tokens."""
    if len(x) <= _MANY:
        return multiply(x, a)
    bits = np.ascontiguousarray(x).view(f"V{x.shape[1] * x.itemsize}")[:, 0]
    _, first, which = np.unique(bits, return_index=True, return_inverse=True)
    return multiply(x[first], a)[which]


def blocked(x: Array, a: Array, size: int) -> Array:
    """Add up blocks of columns."""
    z = np.zeros((len(x), len(a)), np.float32)
    for h in range(0, x.shape[1], size):
        z += product(x[:, h : h + size], a[:, h : h + size])
    return z


def pairwise(x: Array, a: Array) -> Array:
    """Halve the columns until few are left, and add up the halves."""
    width = x.shape[1]
    if len(x) * len(a) <= _FEW:
        return halved(x[:, None] * a)
    if width <= 4:
        return in_order(x, a)
    half = width // 2
    return pairwise(x[:, :half], a[:, :half]) + pairwise(x[:, half:], a[:, half:])


def halved(products: Array) -> Array:
    """Add the second half of the products to the first, until one is left."""
    while (width := products.shape[2]) > 1:
        half = (width + 1) // 2
        sums = products[:, :, :half].copy()
        sums[:, :, : width - half] += products[:, :, half:]
        products = sums
    return products[:, :, 0]


def by_rows(x: Array, a: Array, rows: int) -> Array:
    """Multiply a few tokens at a time."""
    parts = [product(x[t : t + rows], a) for t in range(0, len(x), rows)]
    return np.concatenate(parts) if parts else product(x, a)


def _sums(name: str, why: str, multiply: Product, claims: Capabilities) -> None:
    def logits(w: Work) -> Array:
        return gate_logits(w, multiply)

    def reported(w: Work, stage: str) -> Array | None:
        return logits(w) if stage == "logits" else w.logits

    stage = reported if claims is ROUTED else logits
    stage.__doc__ = why
    names = ("logits", "reported_logits") if claims is ROUTED else ("logits",)
    honest(name, *names, claims=claims)(stage)


_sums(
    "sum-in-order",
    "One product after another: the longest chain of roundings.",
    in_order,
    ROUTED,
)
_sums(
    "sum-reversed",
    "The same from the other end.",
    lambda x, a: in_order(x[:, ::-1], a[:, ::-1]),
    WHOLE,
)
_sums("sum-pairwise", "Halves of halves: the shortest chain.", pairwise, ROUTED)
_sums("sum-in-chunks", "Blocks of 32 columns.", lambda x, a: blocked(x, a, 32), WHOLE)
_sums("fused-multiply-add", "Products that are not rounded before they are added.", fused, ROUTED)
_sums(
    "token-by-token",
    "One row at a time: another BLAS kernel.",
    lambda x, a: by_rows(x, a, 1),
    WHOLE,
)
_sums("batches-of-eight", "Eight rows at a time.", lambda x, a: by_rows(x, a, 8), ROUTED)


@honest("group-sums-best-first", "group_scores")
def _(w: Work) -> Array:
    """A group's best are added from the best to the least."""
    numbers = np.where(np.isnan(w.biased), -np.inf, w.biased)
    best = -np.sort(-numbers.reshape(-1, w.groups.count, w.experts_per_group), axis=2)
    top = min(w.groups.top, w.experts_per_group)
    total = best[:, :, 0]
    for i in range(1, top):
        total = total + best[:, :, i]
    return total
