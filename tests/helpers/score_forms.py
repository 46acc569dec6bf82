"""Honest forms of the score functions in float32, and their true values in many digits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

torch = pytest.importorskip("torch")

Array = np.ndarray
ONE, LOG2E = np.float32(1), np.float32(np.log2(np.e))


def exp2_softmax(z: Array) -> Array:
    """As flash kernels do: logits times log2(e), and the shift, before one exp2."""
    e = np.exp2(z * LOG2E - z.max(axis=1, keepdims=True) * LOG2E)
    return e * (ONE / e.sum(axis=1, keepdims=True))


def logsumexp_softmax(z: Array) -> Array:
    z = torch.tensor(z)
    return torch.exp(z - torch.logsumexp(z, dim=1, keepdim=True)).numpy()


def exp2_logsumexp_softmax(z: Array) -> Array:
    """The norm from natural logarithms, the quotient in powers of 2."""
    norm = torch.logsumexp(torch.tensor(z), dim=1, keepdim=True).numpy()
    return np.exp2(z * LOG2E - norm * LOG2E)


def online_softmax(z: Array) -> Array:
    """As chunked kernels do: a running maximum, and a running sum that each new one rescales."""
    most, total = z[:, :1], np.ones((len(z), 1), np.float32)
    for e in range(1, z.shape[1]):
        new = np.maximum(most, z[:, e : e + 1])
        total = total * np.exp(most - new) + np.exp(z[:, e : e + 1] - new)
        most = new
    return np.exp(z - most) / total


SOFTMAXES: dict[str, Callable[[Array], Array]] = {
    "torch": lambda z: torch.softmax(torch.tensor(z), dim=1).numpy(),
    "log_softmax": lambda z: torch.log_softmax(torch.tensor(z), dim=1).exp().numpy(),
    "exp2": exp2_softmax,
    "logsumexp": logsumexp_softmax,
    "exp2 of logsumexp": exp2_logsumexp_softmax,
    "online": online_softmax,
}


def spread_rows(width: int, shift: float, experts: int, seed: int = 0) -> Array:
    """Rows whose least logit is ``width`` below the greatest, which is ``shift``."""
    rng = np.random.default_rng(seed)
    z = shift - rng.uniform(0, width, (60, experts))
    z[:, 0], z[:, -1] = shift, shift - width
    z[::2].sort(axis=1)  # every second row ascends: a running maximum changes with each expert
    return z.astype(np.float32)


SPREADS = [(80, 40.0, 8), (80, 0.0, 8), (80, -5.0, 2), (5, 3.0, 64), (1, 80.0, 8), (8, 9.0, 2)]


def tanh_sigmoid(z: Array) -> Array:
    return (0.5 * torch.tanh(torch.tensor(z) / 2) + 0.5).numpy()


def exp_sigmoid(z: Array) -> Array:
    return ONE / (ONE + np.exp(-z))


def exp2_sigmoid(z: Array) -> Array:
    return ONE / (ONE + np.exp2(-z * LOG2E))


def two_sided_sigmoid(z: Array) -> Array:
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, ONE, e) / (ONE + e)


SIGMOIDS: dict[str, Callable[[Array], Array]] = {
    "torch": lambda z: torch.sigmoid(torch.tensor(z)).numpy(),
    "1/(1+exp(-z))": exp_sigmoid,
    "exp2": exp2_sigmoid,
    "two-sided": two_sided_sigmoid,
    "exp(logsigmoid)": lambda z: torch.nn.functional.logsigmoid(torch.tensor(z)).exp().numpy(),
}

SOFTPLUSES: dict[str, Callable[[Array], Array]] = {
    "torch": lambda z: torch.nn.functional.softplus(torch.tensor(z)).sqrt().numpy(),
    "logaddexp": lambda z: np.sqrt(np.logaddexp(np.float32(0), z)),
    "two-sided": lambda z: np.sqrt(np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))),
    "-logsigmoid": lambda z: torch.sqrt(-torch.nn.functional.logsigmoid(torch.tensor(-z))).numpy(),
}


def plain_softplus(z: Array) -> Array:
    """``log(1 + exp(z))`` as written, with a threshold for large z."""
    return np.sqrt(np.where(z > 20, z, np.log(ONE + np.exp(np.minimum(z, 80)))))


def truly(function: Callable[[Any], Any], values: Array) -> Array:
    """``function`` of each value in 50 digits, rounded to float64 at the end."""
    with mpmath.workdps(50):
        flat = [float(function(mpmath.mpf(float(value)))) for value in values.ravel()]
    return np.array(flat).reshape(values.shape)


def true_softmax(rows: Array) -> Array:
    with mpmath.workdps(50):
        result = []
        for row in rows.astype(np.float64).tolist():
            numerators = [mpmath.exp(value) for value in row]
            total = mpmath.fsum(numerators)
            result.append([float(value / total) for value in numerators])
    return np.array(result)
