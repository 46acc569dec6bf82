"""What exact arithmetic makes of the rows of a call, in float64 on a device of torch.

Every number is within a few units of float64 of what NumPy makes of the same row: far inside the
intervals of what is not exact, and equal where it is (docs/spec/judging.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.judge.certain_logits import CertainLogits
from moe_routing.conformance.judge.intervals import underflow
from moe_routing.reference import Groups, RouterConfig, RouterInputs
from moe_routing.reference.formats import FLOAT32, Bools, FloatFormat, Floats, Ids

if TYPE_CHECKING:
    from torch import Tensor

_FULL = ("out of memory", "alloc_failed", "not_initialized")
"""What torch's errors say of a device without memory, as of one that another library holds."""

TINIEST = FLOAT32.tiny / FLOAT32.unit_roundoff  # times a unit, what a product may lose of itself


@dataclass(frozen=True, kw_only=True, eq=False)
class Marks:
    """What a device found of some rows: which are ``right [T]``, but for their weights.

    ``logits [T, K]`` are those at the answer's ids that later stages start from; what they may be
    off by is ``least`` at any rate, and ``most`` at the most; ``spread [T]`` is the most of a row.
    ``shift [T, 1]`` is the greatest logit after the logit op, ``others [T, K]`` the sum of the
    exponentials of all others less that; ``used [T]`` is about what share of its radius a logit
    took.
    """

    right: Bools
    logits: Floats
    least: Floats
    most: Floats
    spread: Floats
    shift: Floats
    others: Floats
    used: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Answered:
    """The rows of an answer: its ids and logits, and whether later stages start from those."""

    ids: Ids
    logits: Floats | None
    routed: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class DeviceRows:
    """A call whose rows are looked at on ``device``: its logits are ``certain`` of some more.

    They are stored in ``out``.
    """

    config: RouterConfig
    inputs: RouterInputs
    certain: CertainLogits
    out: FloatFormat
    device: str

    def marks(self, rows: slice, answered: Answered) -> Marks | None:
        """Look at the ``rows`` of a call; None where the device has no memory left for it."""
        import torch

        try:
            with torch.no_grad():
                return self._marks(rows, answered)
        except RuntimeError as error:
            if not any(words in str(error).lower() for words in _FULL):
                raise
            return None

    def _marks(self, rows: slice, answered: Answered) -> Marks:
        import torch

        chosen = self._put(answered.ids)
        right = _distinct(chosen, self.config.num_experts)
        places = chosen.clamp(0, self.config.num_experts - 1)
        reference = self._reference(rows)
        start, used = reference.logits, torch.zeros_like(reference.logits[:, 0])
        least, most = reference.least, reference.most
        if answered.logits is not None:
            own = self._put(answered.logits)
            fine, used = reference.permits(own)
            right &= fine
            if answered.routed:
                start, least, most = own, torch.zeros_like(own), torch.zeros_like(own)
        operated = self._operated(start)
        right &= _best(self._competing(operated), places)
        shift = operated.amax(dim=1, keepdim=True)
        powers = torch.exp(operated - shift)
        found = {
            "right": right,
            "logits": start.gather(1, places),
            "least": least.gather(1, places),
            "most": most.gather(1, places),
            "spread": most.amax(dim=1),
            "shift": shift,
            "others": powers.sum(dim=1, keepdim=True) - powers.gather(1, places),
            "used": used,
        }
        return Marks(**{name: each.cpu().numpy() for name, each in found.items()})

    def _reference(self, rows: slice) -> Reference:
        """Return the logits of some rows, and what they may be off by."""
        hidden = self._put(self.inputs.hidden[rows]).double()
        parts = [hidden @ each.T for each in self._matrices]
        sizes = [hidden.abs() @ each.abs().T for each in self._matrices]
        logits, magnitude = sum(parts[1:], parts[0]), sum(sizes[1:], sizes[0])
        certain, whole = self.certain.rows(rows), magnitude
        if self.inputs.gate_bias is not None:
            bias = self._put(self.inputs.gate_bias).double()
            logits, whole = logits + bias, magnitude + bias.abs()
        rounded, few = self._put(certain.rounded), (1 + len(parts)) * underflow(self.out)
        return Reference(
            logits=logits,
            summed=rounded * magnitude,
            stored=certain.stored * logits.abs(),
            inexact=magnitude > self._put(certain.inexact),
            most=2.0 * rounded * (whole + TINIEST * self.inputs.hidden_size)
            + (8.0 * self.out.unit_roundoff * whole + 2.0 * few),
        )

    @cached_property
    def _matrices(self) -> list[Tensor]:
        return [self._put(each).double() for each in self.certain.matrices]

    def _operated(self, logits: Tensor) -> Tensor:
        """Apply the logit op."""
        import torch

        cap = self.config.logit_softcap
        if self.config.logit_multiplier != 1.0:
            logits = logits * self.config.logit_multiplier
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def _competing(self, operated: Tensor) -> Tensor:
        """Return what competes; the logits, whose order is the scores', where nothing is added."""
        import torch

        bias, groups = self.inputs.selection_bias, self.config.groups
        if bias is None and groups is None:
            return operated
        if bias is not None:
            values = _scores()[self.config.score](operated) + self._put(bias).double()
        elif self.config.score == "softmax":  # numerators compete, as in the judge
            values = torch.exp(operated - operated.amax(dim=1, keepdim=True))
        else:
            values = _scores()[self.config.score](operated)
        if groups is None:
            return values
        fill = torch.full_like(values, groups.fill)
        return torch.where(_kept(values, groups), values, fill)

    def _put(self, array: npt.NDArray[np.generic]) -> Tensor:
        """Copy an array to the device."""
        import torch

        writable = array if array.flags.writeable else array.copy()
        return torch.from_numpy(np.ascontiguousarray(writable)).to(self.device)


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """The reference's ``logits`` of some rows, and what rounding may make of them, all ``[T, E]``.

    Where ``inexact``, they may be off by what is ``summed`` and what is ``stored``, at any rate;
    nowhere by more than ``most``.
    """

    logits: Tensor
    summed: Tensor
    stored: Tensor
    inexact: Tensor
    most: Tensor

    @property
    def least(self) -> Tensor:
        """What each may be off by at any rate."""
        return (self.summed + self.stored) * self.inexact

    def permits(self, own: Tensor) -> tuple[Tensor, Tensor]:
        """Return which rows of logits are certainly permitted, and about the share they used."""
        import torch

        error = (own - self.logits).abs()
        used = torch.where(error > 0, error / self.summed, error).amax(dim=1)
        return ((error <= self.least) | (error == 0)).all(dim=1), used


def _scores() -> dict[str, Callable[[Tensor], Tensor]]:
    """Return the score functions by the names of ``RouterConfig.score``."""
    import torch

    return {
        "softmax": lambda z: torch.softmax(z, dim=1),
        "sigmoid": torch.sigmoid,
        "sqrtsoftplus": lambda z: torch.sqrt(torch.logaddexp(torch.zeros_like(z), z)),
        "identity": lambda z: z,
    }


def _kept(values: Tensor, groups: Groups) -> Tensor:
    """Return ``[T, E]``: which experts belong to groups of the best sums; of equal ones, any."""
    import torch

    size = values.shape[1] // groups.count
    each = values.reshape(len(values), groups.count, size)
    best = each.topk(min(groups.top, size), dim=2, sorted=True).values
    total = best[:, :, -1]
    for place in range(best.shape[2] - 2, -1, -1):  # from the least to the best
        total = total + best[:, :, place]
    places = total.topk(groups.kept, dim=1).indices
    kept = torch.zeros_like(total, dtype=torch.bool).scatter_(1, places, True)
    return kept.repeat_interleave(size, dim=1)


def _distinct(ids: Tensor, experts: int) -> Tensor:
    """Return which rows of ids are distinct, and in range."""
    ordered = ids.sort(dim=1).values
    distinct = (ordered[:, 1:] != ordered[:, :-1]).all(dim=1)
    return distinct & (ordered[:, 0] >= 0) & (ordered[:, -1] < experts)


def _best(values: Tensor, ids: Tensor) -> Tensor:
    """Return which rows have none outside ``ids [T, K]`` that is greater than one of them."""
    inside = values.gather(1, ids).amin(dim=1)
    return inside >= values.scatter(1, ids, float("-inf")).amax(dim=1)
