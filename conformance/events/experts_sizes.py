"""Events of experts: sizes at which kernels change their path, exactly, and one beyond."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.events.experts import MIXED, ran
from moe_routing.conformance.events.registry import FAMILIES
from moe_routing.conformance.judge.experts import Layer
from moe_routing.reference.formats import Ids

FAMILIES["ran-tokens"] = "a call of experts on so many tokens"
for _number in (0, 1, 31, 33, 65, 129, 257, 513, 1025, 4097):
    ran(
        f"tokens:{_number}",
        f"{_number:,} tokens",
        lambda layer, number=_number: layer.inputs.num_tokens == number,  # type: ignore[misc]
        ids=np.resize(np.array(MIXED), (_number, 2)),
    )


def _each_once(count: int) -> Ids:
    """Return tokens of two slots that go to every expert."""
    return np.resize(np.arange(count), (-(-count // 2), 2))


FAMILIES["ran-experts"] = "so many experts, and routes to each"
for _number in (5, 60, 129, 257, 300):
    ran(
        f"experts:{_number}",
        f"{_number} experts, and routes to each",
        lambda layer, number=_number: _busy_experts(layer) == number,  # type: ignore[misc]
        ids=_each_once(_number),
        count=_number,
    )

FAMILIES["ran-slots"] = "so many experts a token, each of a weight that is not 0"
for _number in (5, 9, 10, 16, 33):
    ran(
        f"slots:{_number}",
        f"{_number} experts a token, each of a weight that is not 0",
        lambda layer, number=_number: _all_weigh(layer, number),  # type: ignore[misc]
        ids=(np.arange(_number) + np.arange(3)[:, None]) % (_number + 2),
        count=_number + 2,
    )

FAMILIES["ran-rows"] = "an expert with exactly so many routes"
for _number in (16, 32, 64, 128, 256):
    ran(
        f"rows:{_number}",
        f"an expert with exactly {_number} routes",
        lambda layer, number=_number: bool((layer.counts == number).any()),  # type: ignore[misc]
        ids=np.tile([[1, 3]], (_number, 1)),
    )

FAMILIES["ran-columns"] = "hidden states of so many columns"
FAMILIES["ran-width"] = "experts of such a width"
for _number in (17, 33, 65, 80, 128, 130, 144, 257, 384):
    ran(
        f"columns:{_number}",
        f"hidden states of {_number} columns",
        lambda layer, number=_number: number == _busy(layer)[0],  # type: ignore[misc]
        sizes=(_number, 4),
    )
    ran(
        f"width:{_number}",
        f"experts of a width of {_number}",
        lambda layer, number=_number: number == _busy(layer)[1],  # type: ignore[misc]
        sizes=(4, _number),
    )

FAMILIES["ran-large"] = "calls of experts in the sizes of layers that are served"
ran(
    "large:1030-columns",
    "hidden states of 1,030 columns or more",
    lambda layer: _busy(layer)[0] >= 1030,
    sizes=(1030, 4),
)
ran(
    "large:1030-width",
    "experts of a width of 1,030 or more",
    lambda layer: _busy(layer)[1] >= 1030,
    sizes=(4, 1030),
)
ran(
    "large:1030-experts",
    "1,030 experts, and routes to each",
    lambda layer: _busy_experts(layer) == 1030,
    ids=_each_once(1030),
    count=1030,
)
ran(
    "large:32774-routes",
    "32,774 routes, which 16 bits do not number",
    lambda layer: int(layer.counts.sum()) == 32_774,
    ids=np.resize(np.array(MIXED), (16_387, 2)),
)
ran(
    "large:7170-columns",
    "hidden states of 7,170 columns or more",
    lambda layer: _busy(layer)[0] >= 7170,
    ids=((1, 0), (0, 1)),
    count=2,
    sizes=(7170, 1),
)
ran(
    "large:4100-width",
    "experts of a width of 4,100 or more",
    lambda layer: _busy(layer)[1] >= 4100,
    ids=((1, 0), (0, 1)),
    count=2,
    sizes=(1, 4100),
)
ran(
    "exact-wide",
    "an output in 16 bits, of more than 256 columns, that no honest order of operations rounds",
    lambda layer: (
        layer.inputs.dtype != "float32"
        and _busy(layer)[0] > 256
        and bool((layer.exact & (layer.output.mid != 0.0)).any())
    ),
    activations=("relu",),
    values=("exact",),
    sizes=(264, 8),
)

ran(
    "negative-weights",
    "routing weights below 0 beside others above it",
    lambda layer: bool((layer.inputs.weights < 0.0).any() and (layer.inputs.weights > 0.0).any()),
    weights="signed",
)

PAST = 2**16
"""The numbers of an array from which 16 bits hold no offset."""

ran(
    "row-offsets-past-16-bits",
    "a row, of all routes', that begins past number 65,536",
    lambda layer: (int(layer.counts.sum()) - 1) * layer.inputs.hidden_size >= PAST,
    ids=np.tile([[1, 3]], (130, 1)),
    sizes=(256, 4),
)
ran(
    "inner-offsets-past-16-bits",
    "a row, of all routes', whose inner numbers begin past number 65,536",
    lambda layer: (int(layer.counts.sum()) - 1) * layer.inputs.width >= PAST,
    ids=np.tile([[1, 3]], (130, 1)),
    sizes=(4, 256),
)
ran(
    "matrix-offsets-past-16-bits",
    "a route to an expert whose matrices begin past number 65,536",
    lambda layer: _last_busy(layer) * layer.inputs.hidden_size * layer.inputs.width >= PAST,
    ids=[[17, 0], [3, 16], [16, 17]],
    count=18,
    sizes=(64, 64),
)


def _last_busy(layer: Layer) -> int:
    """Return the last expert that has a route, or 0."""
    return int(np.flatnonzero(layer.counts).max(initial=0))


def _busy_experts(layer: Layer) -> int:
    """Return E where every expert has a route, or 0."""
    return layer.counts.size if bool((layer.counts > 0).all()) else 0


def _all_weigh(layer: Layer, top_k: int) -> bool:
    weights = layer.inputs.weights
    return weights.size > 0 and weights.shape[1] == top_k and bool((weights != 0.0).all())


def _busy(layer: Layer) -> tuple[int, int]:
    """Return H and F where some expert runs, or (0, 0)."""
    runs = bool(layer.present.any())
    return (layer.inputs.hidden_size, layer.inputs.width) if runs else (0, 0)
