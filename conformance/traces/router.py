"""The router of a trace: its configuration, and what of it was recorded of each layer."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.judge.bounds import Bounds
from moe_routing.conformance.judge.defined_scores import judged_tokens
from moe_routing.conformance.judge.intervals import Interval, underflow
from moe_routing.conformance.judge.later import SelectionBounds
from moe_routing.conformance.judge.logits import LogitBounds, format_of
from moe_routing.conformance.judge.selection import may_select
from moe_routing.conformance.traces.dtypes import AnyArray
from moe_routing.implementations import Numerics
from moe_routing.reference import RouterConfig, RouterInputs
from moe_routing.reference.formats import FLOAT64, Bools, FloatFormat, Floats, Ids
from moe_routing.reference.replay import forced_config
from moe_routing.reference.routing import later_stages

Singles = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Which arrays a router has besides its gate, as a preset says: those a trace must hold."""

    selection_bias: bool = False
    per_expert_scale: bool = False
    gate_bias: bool = False
    expert_table: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Router:
    """The router of one layer, as far as it was recorded.

    ``dtypes`` are those that the hidden states may have. ``logits`` and ``weights`` are the
    formats of the numbers that were recorded, None of what was not, ``own_logits`` and
    ``own_weights`` those of the dtypes that hold them. ``selects`` and ``weighs`` say what can be
    judged; ``forced`` that the experts were replayed, so that only their weights are. ``numerics``
    are declared.
    """

    config: RouterConfig
    dtypes: tuple[str, ...]
    logits: FloatFormat | None
    weights: FloatFormat | None
    own_logits: FloatFormat = FLOAT64
    own_weights: FloatFormat = FLOAT64
    gate_weight: Singles | None = None
    gate_bias: Singles | None = None
    selection_bias: Singles | None = None
    per_expert_scale: Singles | None = None
    hidden_scale: Singles | None = None
    selects: bool = True
    weighs: bool = True
    forced: bool = False
    numerics: Numerics = field(default_factory=Numerics)

    @cached_property
    def inputs(self) -> RouterInputs:
        """The inputs of a call without tokens: what of them later stages read."""
        made = object.__new__(RouterInputs)
        values = {each.name: None for each in fields(RouterInputs)}
        none = np.zeros((0, 1), np.float32)
        given = {
            "hidden": none,
            "gate_weight": np.zeros((self.config.num_experts, 1), np.float32),
            "dtype": self.dtypes[0],
            "selection_bias": None if self.forced else self.selection_bias,
            "selection_bias_on": "gate",
            "per_expert_scale": self.per_expert_scale,
        }
        for name, value in {**values, **given}.items():
            object.__setattr__(made, name, value)
        return made

    @cached_property
    def judged_config(self) -> RouterConfig:
        """The configuration that weights are judged by: without groups where experts are forced."""
        return forced_config(self.config) if self.forced else self.config

    @cached_property
    def otherwise(self) -> Router | None:
        """The router with the next of the dtypes; what any of them explains is explained."""
        return replace(self, dtypes=self.dtypes[1:]) if len(self.dtypes) > 1 else None

    @property
    def chooses(self) -> bool:
        """Whether the choice of experts is judged."""
        return self.selects and not self.forced

    @cached_property
    def score_format(self) -> FloatFormat:
        """The least precise format that scores may be computed in."""
        return format_of(self.config.scores_dtype, self.inputs)

    @cached_property
    def weight_format(self) -> FloatFormat:
        """The least precise format that the router may store weights in."""
        return format_of(self.config.weights_dtype, self.inputs)

    @cached_property
    def stored_logits(self) -> FloatFormat:
        """The least precise format that the router may store its logits in."""
        return format_of(self.config.logits_dtype, self.inputs)

    @cached_property
    def later_of_nothing(self) -> SelectionBounds:
        """Bounds of no tokens: what selection reads besides logits."""
        return self.later(Interval.point(np.zeros((0, self.config.num_experts))))

    def defined(self, logits: Floats) -> Bools:
        """Return which tokens have defined scores from their exact ``logits [n, E]``."""
        nowhere = np.zeros(logits.shape, dtype=bool)
        bounds = LogitBounds(
            reference=logits, permitted=Interval.point(logits), exact=nowhere, overflows=nowhere
        )
        with np.errstate(all="ignore"):
            done = later_stages(self.config, self.inputs, (), logits)
            return judged_tokens(self.config, self.inputs, bounds, done)

    def bounds(self, judged: Bools) -> Bounds:
        """Return bounds of tokens whose logits are given, of which some may be ``judged``."""
        made = Bounds(self.judged_config, self.inputs, self.numerics)
        made.__dict__["judged"] = judged
        return made

    def later(self, logits: Interval) -> SelectionBounds:
        """Return the bounds of the later stages from those of the logits of some tokens."""
        return self.bounds(np.ones(len(logits.lo), dtype=bool)).from_logits(logits)

    def may_choose(self, later: SelectionBounds, chosen: Bools) -> Bools:
        """Return, per token, whether the logits of ``later`` permit the experts ``chosen``."""
        return may_select(later.competing, chosen, self.config.groups, later.group_format)

    @cached_property
    def record_of_weights(self) -> tuple[float, float]:
        """What recording a weight errs by, relative and absolute; 0 where it rounds nothing.

        The absolute part is that of numbers below the normal range.
        """
        forms = [each for each in (self.weights, self.own_weights) if each is not None]
        finer = [each for each in forms if self._rounds(each)]
        units = [x.unit_roundoff for x in finer if x.precision < self.weight_format.precision]
        return max(units, default=0.0), max((underflow(each) for each in finer), default=0.0)

    def _rounds(self, form: FloatFormat) -> bool:
        """Return whether a format does not hold all numbers of that of the weights."""
        own = self.weight_format
        return form.precision < own.precision or form.min_exponent > own.min_exponent


def within_range(router: Router, logits: AnyArray) -> bool:
    """Return whether no stage can leave its range for any of these logits: mostly so.

    Each stage makes at most sums of as many numbers as there are experts.
    """
    reach = max(float(logits.max(initial=0.0)), -float(logits.min(initial=0.0)))
    greatest = reach * max(1.0, abs(router.config.logit_multiplier))
    bias = router.selection_bias
    if bias is not None and bias.size:
        greatest = max(greatest, float(np.abs(bias).max()))
    limit = min(router.score_format.largest, FLOAT64.largest) / (
        4.0 * max(2, router.config.num_experts)
    )
    return bool(np.isfinite(greatest) and greatest < limit)


def ids_in_range(ids: Ids, experts: int) -> Ids:
    """Return ids that can be gathered at: those out of range are moved into it."""
    return np.clip(ids, 0, experts - 1)
