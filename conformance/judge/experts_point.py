"""The point first: what experts answer, and the least that an honest answer may be away from it.

An output within a lower bound of its radius is right. The bound costs a sixteenth of a product,
where the whole radius costs five times what the centres do (docs/spec/judging.md, "The point
first").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.judge.activations import activated
from moe_routing.conformance.judge.balls import UNIT, Ball, add, mul, settled
from moe_routing.conformance.judge.experts_float32 import Single, certain
from moe_routing.conformance.judge.intervals import store_unit
from moe_routing.reference import ExpertsConfig, ExpertsInputs
from moe_routing.reference.activations import CLAMPED, PLAIN, clamped_swiglu
from moe_routing.reference.experts import Array
from moe_routing.reference.formats import Bools, FloatFormat, Floats, Ids
from moe_routing.reference.routes import ABSENT

Numbers = npt.NDArray[np.floating]

_EVERY = 16
"""Of so many numbers of an expert's inner row, one is asked for its radius."""

_MANY = 2**21
"""The products of a call from which the point comes first; drawn calls have fewer."""

_INWARD = 1.0 - 2.0**-20
"""What pays for the roundings of centres and bounds that are in float64: 2^-28 of the radius."""

_CACHED = 2**18
"""How many numbers of a matrix are read at once: in float64 a cache holds them."""

_ROWS = 2**21
"""How many numbers the rows have that are looked at, or go through an expert, at once."""


@dataclass(frozen=True, eq=False)
class Near:
    """Centres of outputs ``[T, H]``, and lower bounds of their radii."""

    mid: Numbers
    low: Numbers

    def holds(self, values: Floats) -> Bools:
        """Return where ``values`` are right for certain; elsewhere the radius has to say it."""
        held = np.empty(values.shape, dtype=bool)
        for rows in _blocks(*values.shape):
            low = self.low[rows]
            with np.errstate(invalid="ignore", over="ignore"):
                held[rows] = (np.abs(values[rows] - self.mid[rows]) <= low) & np.isfinite(low)
        return held

    def closest(self, values: Floats) -> Ids:
        """Return the token, ``[1]``, that has used most of its lower bound."""
        used = np.zeros(len(values))
        for rows in _blocks(*values.shape):
            with np.errstate(invalid="ignore", divide="ignore"):
                share = np.abs(values[rows] - self.mid[rows]) / self.low[rows]
            used[rows] = np.nan_to_num(share, posinf=0.0).max(axis=1, initial=0.0)
        return np.array([used.argmax()])


def _blocks(count: int, width: int) -> Iterator[slice]:
    """Yield blocks of rows, so that their temporaries are small beside what is held."""
    step = max(1, _ROWS // max(1, width))
    for start in range(0, count, step):
        yield slice(start, start + step)


def is_large(inputs: ExpertsInputs) -> bool:
    """Whether a call has so many products that the point first pays."""
    routes = inputs.num_tokens * inputs.top_k
    return routes * inputs.hidden_size * inputs.width >= _MANY


def permitted(
    close: Near, values: Floats, radius: Callable[[Ids], Ball], most: int = 2**10
) -> Bools:
    """Return where ``values [T, H]`` are permitted.

    Tokens that are not all near the point are held to their whole ``radius``, ``most`` at a time.
    """
    held = close.holds(values)
    rest = np.flatnonzero(~held.all(axis=1))
    for start in range(0, rest.size, most):
        some = rest[start : start + most]
        held[some] = radius(some).contains(values[some])
    return held


def near(config: ExpertsConfig, inputs: ExpertsInputs, form: FloatFormat, weights: Ball) -> Near:
    """Return the weighted sums over the slots of each token, for ``weights [T, K]``."""
    with np.errstate(all="ignore"):
        found = _in_float32(config, inputs, form, weights)
        return found or _in_float64(config, inputs, form, weights)


def _in_float32(
    config: ExpertsConfig, inputs: ExpertsInputs, form: FloatFormat, weights: Ball
) -> Near | None:
    """Return what float32 answers, or None where of some expert it says nothing of radii."""
    mid = np.zeros(inputs.hidden.shape, np.float32)
    low = np.zeros_like(mid)
    terms = np.count_nonzero(inputs.hidden, axis=1)
    weighed = np.count_nonzero((weights.mid != 0.0) & (inputs.expert_ids != ABSENT), axis=1)
    for expert, tokens, slots in _routes(inputs):
        some = Single(
            *(config, inputs, form, expert),
            terms=terms[tokens],
            slots=weighed[tokens],
        )
        made = some.weighted(inputs.hidden[tokens], weights[tokens, slots])
        if made is None:
            return None
        for total, own in zip((mid, low), made, strict=True):
            _add_at(total, tokens, own.T)
    return Near(mid, certain(low, inputs))


def _in_float64(
    config: ExpertsConfig, inputs: ExpertsInputs, form: FloatFormat, weights: Ball
) -> Near:
    """Return exact outputs, at about twice the cost."""
    mid, low = np.zeros(inputs.hidden.shape), np.zeros(inputs.hidden.shape)
    terms = np.count_nonzero(inputs.hidden, axis=1)
    for expert, tokens, slots in _routes(inputs):
        some = _Expert(config, inputs, form, expert, terms[tokens][:, None])
        x = inputs.hidden[tokens].astype(np.float64)
        made = some.weighted(x, weights[tokens, slots][:, None])
        for total, own in ((mid, made.mid), (low, made.low)):
            _add_at(total, tokens, own)
    low *= _INWARD
    return Near(mid, low)


def _routes(inputs: ExpertsInputs) -> Iterator[tuple[int, Ids, Ids]]:
    """Yield each chosen expert with the tokens and slots of its routes, many of them in parts."""
    flat = inputs.expert_ids.reshape(-1)
    order = np.argsort(flat, kind="stable")[np.count_nonzero(flat == ABSENT) :]
    experts, starts = np.unique(flat[order], return_index=True)
    most = max(256, _ROWS // max(inputs.hidden_size, inputs.width))
    for expert, first, end in zip(experts, starts, (*starts[1:], len(order)), strict=False):
        for start in range(first, end, most):
            tokens, slots = np.divmod(order[start : min(start + most, end)], inputs.top_k)
            yield int(expert), tokens, slots


def _add_at(total: Numbers, tokens: Ids, rows: Numbers) -> None:
    """Add rows to those of their tokens, which never descend; a token may come several times."""
    if (tokens[1:] == tokens[:-1]).any():
        first = np.flatnonzero(np.diff(tokens, prepend=-1))
        tokens, rows = tokens[first], np.add.reduceat(rows, first, axis=0)
    total[tokens] += rows


@dataclass(frozen=True, eq=False)
class _Expert:
    """One expert of a call, on rows ``[n, ...]``.

    ``terms`` counts the numbers of their hidden states that are not 0; a row that a weight of 0
    scales has fewer, and is 0 with all that it makes.
    """

    config: ExpertsConfig
    inputs: ExpertsInputs
    form: FloatFormat
    expert: int
    terms: Ids

    def weighted(self, x: Floats, weight: Ball) -> Near:
        """Return what the expert adds for ``x [n, H]``, whose weights are ``[n, 1]``."""
        early = self.config.weight_on == "input"
        inner, some = self._inner(x * weight.mid if early else x)
        if not early:
            inner, some = inner * weight.mid, mul(some, weight, self.form)
        made = self._last(inner, some.rad)
        if s := store_unit(self.form):
            made.low[:] += np.where(made.low > 0.0, s * np.abs(made.mid), 0.0)
        if (bias := self.inputs.down_bias) is not None:
            made.mid[:] += bias[self.expert] * (1.0 if early else weight.mid)
        return made

    def _inner(self, x: Floats) -> tuple[Floats, Ball]:
        """Return what goes into the last product, ``[n, F]``, and a sixteenth of it as balls."""
        config, inputs = self.config, self.inputs
        up, some_up = self._linear(x, inputs.up_weight, inputs.up_bias)
        if inputs.gate_weight is None:
            return PLAIN[config.activation](up), activated(config, None, some_up, self.form)
        gate, some_gate = self._linear(x, inputs.gate_weight, inputs.gate_bias)
        some = activated(config, some_gate, some_up, self.form)
        if config.activation == CLAMPED:
            return clamped_swiglu(gate, up, config.limit, config.alpha), some
        return PLAIN[config.activation](gate) * up, some

    def _linear(self, x: Floats, weight: Array, bias: Array | None) -> tuple[Floats, Ball]:
        """Return ``x @ weight.mT`` with its bias, and every sixteenth column of it as balls.

        A sum that float32 does not hold is not exact, and so its radius is no less than that many
        roundings of it as its row and its column have products.
        """
        own = weight[self.expert]
        out = np.empty((len(x), len(own)))
        for rows, part in _converted(own):
            np.matmul(x, part.T, out=out[:, rows])
        some = out[:, ::_EVERY]
        n = np.minimum(self.terms, np.count_nonzero(own[::_EVERY], axis=1))
        rounds = some.astype(np.float32) != some
        ball = settled(Ball(some, np.where(rounds, n * UNIT * np.abs(some), 0.0)), self.form, 0)
        if bias is None:
            return out, ball
        ball = add(ball, Ball.exact(bias[self.expert][::_EVERY]), self.form)
        return np.add(out, bias[self.expert], out=out), ball

    def _last(self, inner: Floats, rad: Floats) -> Near:
        """Return the last product, and the part of its radii that comes from ``rad [n, F/16]``."""
        own = self.inputs.down_weight[self.expert]
        mid, low = np.empty((len(inner), len(own))), np.empty((len(inner), len(own)))
        for rows, part in _converted(own):
            np.matmul(inner, part.T, out=mid[:, rows])
            np.matmul(rad, np.abs(part[:, ::_EVERY]).T, out=low[:, rows])
        return Near(mid, low)


def _converted(matrix: Array) -> Iterator[tuple[slice, Floats]]:
    """Yield the rows of a matrix in float64, a part at a time: memory that the next part reuses."""
    step = max(1, _CACHED // max(1, matrix.shape[1]))
    held = np.empty((min(step, len(matrix)), matrix.shape[1]))
    for start in range(0, len(matrix), step):
        own = matrix[start : start + step]
        part = held[: len(own)]
        np.copyto(part, own)
        yield slice(start, start + len(own)), part
