"""What a step's balance is judged by: counts and updates exactly, losses and gradients by balls.

Derivations: docs/spec/judging.md, "Balance".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from moe_routing.conformance.judge import balls
from moe_routing.conformance.judge.ball_sums import total
from moe_routing.conformance.judge.balls import UNIT, Ball
from moe_routing.conformance.judge.gradient_balls import wider
from moe_routing.conformance.judge.intervals import ELEMENTARY
from moe_routing.conformance.judge.quotients import EXPONENT
from moe_routing.reference import balance
from moe_routing.reference.balance import BalanceConfig, BalanceInputs
from moe_routing.reference.formats import FLOAT32, Floats, Ids

_FACTORS = 8
"""Roundings of a factor: of E, K, T and L, one after another, and of counts over them."""


@dataclass(frozen=True, eq=False)
class Owed:
    """What follows from the inputs of a call."""

    config: BalanceConfig
    inputs: BalanceInputs

    @cached_property
    def counts(self) -> Ids:
        """The routes of each expert in a step of training, ``[L, E]``; none in evaluation."""
        found = balance.expert_counts(self.inputs)
        return found * 0 if self.config.mode == "eval" else found

    @cached_property
    def shares(self) -> Ball:
        """The shares of the experts, ``[L, T, E]``, 0 in padding."""
        z = Ball.exact(self.inputs.logits)
        if self.config.score == "softmax":
            found = balls.softmax(z, FLOAT32)
        else:
            found = balls.div(self.sigmoids, self.whole, FLOAT32)
        valid = self.inputs.valid[None, :, None]
        return Ball(found.mid * valid, np.where(valid == 1, found.rad, 0.0))

    @cached_property
    def sigmoids(self) -> Ball:
        """The sigmoids of the logits, ``[L, T, E]``."""
        return balls.sigmoid(Ball.exact(self.inputs.logits), FLOAT32)

    @cached_property
    def whole(self) -> Ball:
        """What sigmoids are divided by, ``[L, T, 1]``."""
        summed = total(self.sigmoids, FLOAT32)
        return balls.rounded(
            Ball((summed.mid + balance.SIGMOID_EPS)[..., None], summed.rad[..., None]), FLOAT32
        )

    @cached_property
    def factors(self) -> Floats:
        """What the sums of shares are multiplied by, ``[L, E]``, exactly."""
        return balance.loss_factors(self.config, self.inputs)

    @cached_property
    def aux_loss(self) -> Ball:
        """The auxiliary loss: tokens are summed up first, or all products at once."""
        apart = self._summed(total(self.shares, FLOAT32, axis=1), self.factors)
        return wider(apart, self._summed(self.shares, self.factors[:, None, :]))

    @staticmethod
    def _summed(shares: Ball, factors: Floats) -> Ball:
        """Sum up the products of shares and factors, in any order."""
        products = Ball(shares.mid * factors, shares.rad * factors)
        terms = balls.rounded(products, FLOAT32, _FACTORS)
        flat = Ball(terms.mid.reshape(1, -1), terms.rad.reshape(1, -1))
        return balls.rounded(total(flat, FLOAT32), FLOAT32, 2)

    @cached_property
    def aux_gradient(self) -> Ball:
        """The gradient of the auxiliary loss by the logits, ``[L, T, E]``.

        Of each part of ``w (g - m)`` every rounding counts, since products may be made before
        the difference.
        """
        shares, valid = self.shares, self.inputs.valid[None, :, None]
        g = balls.rounded(Ball.exact(self.factors[:, None, :] * valid), FLOAT32, _FACTORS)
        m = total(balls.mul(shares, g, FLOAT32), FLOAT32)
        mean = Ball(m.mid[..., None], m.rad[..., None])
        toward = balls.add(g, -mean, FLOAT32)
        slack = (4 * UNIT) * (g.reach + mean.reach)
        toward = Ball(toward.mid, toward.rad + slack)
        if self.config.score == "softmax":
            return balls.mul(shares, toward, FLOAT32)
        slope = balls.mul(self.sigmoids, self._complement, FLOAT32)
        return balls.div(balls.mul(slope, toward, FLOAT32), self.whole, FLOAT32)

    @cached_property
    def _complement(self) -> Ball:
        s = self.sigmoids
        return balls.rounded(Ball(1.0 - s.mid, s.rad + UNIT), FLOAT32)

    @cached_property
    def z_loss(self) -> Ball:
        """The z-loss."""
        z = self.inputs.logits.astype(np.float64)
        most = z.max(axis=-1)
        each = most + np.log(np.exp(z - most[..., None]).sum(axis=-1))
        reach = np.abs(z).max(axis=-1) + np.abs(most)
        count = z.shape[-1]
        units = EXPONENT * reach + 2 * ELEMENTARY + count
        units = units + (ELEMENTARY + 1) * (np.abs(each) + np.log(count))
        lse = Ball(each, units * UNIT)
        squares = balls.mul(lse, lse, FLOAT32)
        valid = self.inputs.valid[None, :]
        kept = Ball((squares.mid * valid).reshape(1, -1), (squares.rad * valid).reshape(1, -1))
        rows = self.inputs.num_valid
        rows *= 1 if self.config.over_layers == "sum" else self.inputs.num_layers
        return balls.rounded(balls.times(total(kept, FLOAT32), 1.0 / rows, FLOAT32), FLOAT32, 4)

    @cached_property
    def bias(self) -> Ball:
        """The bias after the step, ``[L, E]``: exact where float32 holds all that is added."""
        due = balance.updated_bias(self.config, self.inputs)
        if self.config.mode == "eval":
            return Ball.exact(due)
        step = balance.bias_step(self.config, self.inputs)
        held = balls.held(step, FLOAT32) & balls.held(due, FLOAT32)
        slack = 4 * UNIT * (np.abs(due) + np.abs(step) + abs(self.config.rate))
        return Ball(due, np.where(held.all(), 0.0, slack))
