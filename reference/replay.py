"""Replay: recorded routes forced on a router, whose weights are still its own.

An engine records which experts ran; a trainer runs the same ones. ``records`` reads what engines
write. Source: ``docs/spec/replay.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.reference.arrays import AnyArray, freeze
from moe_routing.reference.checks import require_count
from moe_routing.reference.config import RouterConfig
from moe_routing.reference.formats import Bools, Floats, Ids
from moe_routing.reference.inputs import RouterInputs
from moe_routing.reference.routes import ABSENT
from moe_routing.reference.routing import Routing, Stages, route, stages
from moe_routing.reference.weights import gather_weights, renormalize, scale

NO_ROW = -1
"""The row of a token that the record has nothing of: padding."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Recorded:
    """Which experts ran: of N recorded tokens, in L layers, in K slots each.

    Shapes: ``expert_ids [N, L, K]`` int64, -1 where a route is absent; ``weights [N, L, K]``
    float32, or None where they were not recorded; ``rows [T]`` int64, the row of the record that
    each token of the batch has (-1: none, the token is padding), or None where token t has row t.
    ``layer`` is the layer that is replayed, or None where the record has nothing of the layer that
    is called, which then routes by itself. What no token reads may hold anything. Arrays are
    read-only and keep their strides. Errors: ``ValueError`` naming the field.
    """

    expert_ids: Ids
    weights: npt.NDArray[np.float32] | None = None
    rows: Ids | None = None
    layer: int | None = 0

    def __post_init__(self) -> None:
        freeze(self, {"expert_ids": "TLK", "weights": "TLK"}, integers=("expert_ids",))
        freeze(self, {"rows": "T"}, integers=("rows",))
        if self.layer is not None:
            require_count("layer", self.layer, at_least=0)
            if self.layer >= self.num_layers:
                raise ValueError(
                    f"Expected layer < L={self.num_layers} but got {self.layer}: layers are "
                    "numbered as the record has them, dense ones left out"
                )
        self._check_rows()
        if self.layer is not None:
            self._check_ids()

    @classmethod
    def unchecked(cls, **fields: Any) -> Recorded:
        """Return a record of arrays that have been checked before, such as a copy of another's."""
        made = object.__new__(cls)
        for name, value in fields.items():
            object.__setattr__(made, name, value)
        return made

    @property
    def num_layers(self) -> int:
        """L, the layers that were recorded."""
        return int(self.expert_ids.shape[1])

    @property
    def top_k(self) -> int:
        """K, the slots of a token."""
        return int(self.expert_ids.shape[2])

    @property
    def num_tokens(self) -> int:
        """T, the tokens of the batch that it is replayed on."""
        return len(self.expert_ids if self.rows is None else self.rows)

    @property
    def ids(self) -> Ids:
        """The experts to force on each token of the batch, ``[T, K]``; -1 where absent.

        Without ``rows`` it is a view of the record, in its strides. Errors: ``ValueError`` where
        there is no layer to replay.
        """
        return self._of_tokens(self.expert_ids, np.int64(ABSENT))

    @property
    def present(self) -> Bools:
        """Which of these routes are there, ``[T, K]``."""
        there: Bools = self.ids != ABSENT
        return there

    @property
    def forced_weights(self) -> npt.NDArray[np.float32] | None:
        """The recorded weights of these routes, ``[T, K]``, 0 where absent; None without any."""
        if self.weights is None:
            return None
        found = self._of_tokens(self.weights, np.float32(0))
        return np.where(self.present, found, np.float32(0))

    def check_fits(self, config: RouterConfig, inputs: RouterInputs) -> None:
        """Raise ``ValueError`` where the record is not one of such a call."""
        if self.top_k != config.top_k:
            raise ValueError(
                f"Expected expert_ids of shape [N, L, {config.top_k}] for top_k={config.top_k} "
                f"but got {self.expert_ids.shape}"
            )
        if self.num_tokens != inputs.num_tokens:
            raise ValueError(
                f"Expected a record of T={inputs.num_tokens} tokens but got {self.num_tokens}: "
                "rows say which token has which row"
            )
        if self.layer is not None:
            self._check("expert_ids", self.ids >= config.num_experts, self.ids, config.num_experts)

    def _of_tokens(self, array: AnyArray, nothing: np.generic) -> AnyArray:
        if self.layer is None:
            raise ValueError("Cannot have the routes of layer=None: the record has none of it")
        found = array[:, self.layer]
        if self.rows is None:
            return found
        if not len(found):
            return np.full((len(self.rows), self.top_k), nothing)
        return np.where((self.rows == NO_ROW)[:, None], nothing, found[self.rows])

    def _check_rows(self) -> None:
        rows = self.rows
        if rows is None:
            return
        bad = (rows < NO_ROW) | (rows >= len(self.expert_ids))
        if bad.any():
            t = int(np.argmax(bad))
            raise ValueError(
                f"Cannot have rows[{t}]={rows[t]}: expected a row below N={len(self.expert_ids)}, "
                f"or {NO_ROW} for padding"
            )

    def _check_ids(self) -> None:
        self._check("expert_ids", self.ids < ABSENT, self.ids)

    def _check(self, name: str, bad: Bools, ids: Ids, below: int | None = None) -> None:
        if bad.any():
            t, k = (int(i) for i in np.argwhere(bad)[0])
            rule = "ids >= 0" if below is None else f"ids below num_experts={below}"
            raise ValueError(
                f"Cannot have {name} of {ids[t, k]} for token {t} in slot {k}: use {rule}, "
                f"or {ABSENT} where a route is absent"
            )


def forced_config(config: RouterConfig) -> RouterConfig:
    """Return the configuration that is left where nothing is chosen: no groups, and no mask."""
    plain = "scores" if config.weights_from == "masked_scores" else config.weights_from
    return replace(config, groups=None, weights_from=plain)


def forced_inputs(inputs: RouterInputs) -> RouterInputs:
    """Return the inputs without what only chooses: the selection bias, and a table of experts."""
    left_out = ("selection_bias", "expert_table", "token_ids")
    made = object.__new__(RouterInputs)
    for name, value in vars(inputs).items():
        object.__setattr__(made, name, None if name in left_out else value)
    return made


def replay(config: RouterConfig, inputs: RouterInputs, recorded: Recorded) -> Routing:
    """Return the recorded experts, slot by slot, with their weights: the reference answer.

    The weights are those of the pipeline at these experts, in float64, or the recorded ones.
    Nothing is chosen: the selection bias, groups, a mask and a table are not read. An absent route
    stays -1, weighs 0, and enters no norm. A layer without a record is routed. Errors:
    ``ValueError`` where the arguments do not fit one another.
    """
    recorded.check_fits(config, inputs)
    if recorded.layer is None:
        return route(config, inputs)
    plain, bare = forced_config(config), forced_inputs(inputs)
    done = stages(plain, bare)
    given = recorded.forced_weights
    with np.errstate(all="ignore"):
        weights = weights_at(plain, bare, done, recorded.ids) if given is None else given
    return Routing(
        weights=weights.astype(np.float64), expert_ids=recorded.ids.copy(), logits=done.logits
    )


def weights_at(config: RouterConfig, inputs: RouterInputs, done: Stages, ids: Ids) -> Floats:
    """Return the weights ``[T, K]`` at any experts, of which -1 weighs 0 and enters no norm."""
    present = ids != ABSENT
    at = np.where(present, ids, 0)
    operated = done.operated
    if config.weights_from == "softmax_of_selected":
        at, operated = _with_nobody(ids, operated)
    gathered = gather_weights(config, operated, done.scores, done.kept, at)
    shares = renormalize(config.renormalize, np.where(present, gathered, 0.0))
    weights = scale(config, inputs, shares, np.where(present, ids, 0))
    return np.where(present, weights, 0.0)


def _with_nobody(ids: Ids, operated: Floats) -> tuple[Ids, Floats]:
    """Return ids and logits in which an absent route is an expert of its own, at -inf."""
    nobody = np.full((len(operated), 1), -np.inf)
    absent = operated.shape[1]
    return np.where(ids == ABSENT, absent, ids), np.concatenate([operated, nobody], axis=1)
