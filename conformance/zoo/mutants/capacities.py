"""Mutants of capacities that are right in another library's convention.

``real`` names a library that has the convention.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from moe_routing.conformance.zoo.mutants.capacity import dropper
from moe_routing.conformance.zoo.router.dropper import (
    DROPPING,
    DropperWork,
    ranked,
    room,
    rounded,
)
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.reference.routes import ABSENT

_MEGATRON = "NVIDIA/Megatron-LM 0.16.1, moe_utils"
_DEEPSPEED = "deepspeedai/DeepSpeed 0.19.8, sharded_moe"
_MEGABLOCKS = "databricks/megablocks@78eea65"
_AXOLOTL = "axolotl-ai-cloud/axolotl 0.19.0, experts_fn"
_SWITCH = "huggingface/transformers 5.23.0, modeling_switch_transformers"
_NLLB = "huggingface/transformers 5.23.0, modeling_nllb_moe"


def _trap(name: str, stage: str, real: str, family: str = "M72") -> Callable[..., Any]:
    return dropper(name, family, stage, real=real)


def _reading(w: DropperWork, **fields: Any) -> DropperWork:
    """Return the same call under another configuration."""
    return DropperWork(w._own, replace(w.config, **fields), w.routes, w.memory)


# How a capacity is counted.


@_trap("capacity-rounded-down", "capacity", _MEGABLOCKS)
def _(w: DropperWork) -> int:
    """Rounded down, an expert takes less than its share."""
    return room(_reading(w, rounding="down"))


@_trap("capacity-rounded-up", "capacity", _MEGATRON)
def _(w: DropperWork) -> int:
    """Rounded up, an expert takes more than its buffer has rows."""
    return room(_reading(w, rounding="up"))


@_trap("share-rounded-first", "capacity", _NLLB)
def _(w: DropperWork) -> int:
    """The share was rounded before it was multiplied."""
    if w.config.unlimited:
        return w.tokens
    return max(rounded(w, math.ceil(w.share) * w.config.factor), w.config.minimum)


@_trap("slots-left-out-of-the-share", "share", _DEEPSPEED)
def _(w: DropperWork) -> float:
    """The share was that of a token's first slot: K times too little room."""
    right: float = DROPPING["share"](w)
    return right / w.top_k if w.config.share == "routes" else right


@_trap("slots-counted-in-the-share", "share", _MEGATRON)
def _(w: DropperWork) -> float:
    """The share was that of all slots: K times too much room."""
    right: float = DROPPING["share"](w)
    return right * w.top_k if w.config.share == "tokens" else right


@_trap("capacity-taken-for-a-factor", "share", _MEGATRON)
def _(w: DropperWork) -> Any:
    """A capacity was read as a factor."""
    if w.config.share != "one":
        return DROPPING["share"](w)
    return w.tokens * w.top_k / w.config.num_experts


@_trap("factor-taken-for-a-capacity", "share", _AXOLOTL)
def _(w: DropperWork) -> float:
    """A factor was read as a capacity: a token an expert was left."""
    return 1.0


@_trap("minimum-ignored", "capacity", _MEGATRON)
def _(w: DropperWork) -> int:
    """A batch that is small dropped nearly all of it."""
    return room(_reading(w, minimum=0))


@_trap("padding-left-out-of-the-share", "share", "NVIDIA/Megatron-LM#5542")
def _(w: DropperWork) -> float:
    """The capacity of a batch hung on its padding: buffers of two ranks had other sizes."""
    right: float = DROPPING["share"](w)
    there = (w.ids != ABSENT).any(axis=1)
    return right * float(there.mean()) if w.tokens and w.config.share != "one" else right


@_trap("zero-is-unlimited", "capacity", _MEGABLOCKS)
def _(w: DropperWork) -> int:
    """A factor of 0 took everything."""
    return room(_reading(w, zero="unlimited"))


@_trap("zero-is-nothing", "capacity", _MEGATRON)
def _(w: DropperWork) -> int:
    """A factor of 0 took nothing."""
    return room(_reading(w, zero="nothing"))


@_trap("places-from-1", "place", _SWITCH)
def _(w: DropperWork) -> Array:
    """Places that count from 1 were compared as if they counted from 0: one too few was kept."""
    right: Array = DROPPING["place"](w)
    return right + 1


@_trap("places-up-to-the-capacity", "kept", _SWITCH)
def _(w: DropperWork) -> Any:
    """Places that count from 0 were compared as if they counted from 1: one too many was kept."""
    return (w.ids != ABSENT) & (w.place <= w.capacity)


# Who is dropped.


@_trap("by-token-where-by-slot", "rank", _DEEPSPEED)
def _(w: DropperWork) -> Array:
    """Second choices of early tokens came before first choices of later ones."""
    return ranked(_reading(w, order="token") if w.config.order == "slot" else w)


@_trap("by-slot-where-by-token", "rank", _DEEPSPEED)
def _(w: DropperWork) -> Array:
    """First choices of late tokens came before second choices of earlier ones."""
    return ranked(_reading(w, order="slot") if w.config.order == "token" else w)


@_trap("by-weight-where-by-position", "rank", _AXOLOTL)
def _(w: DropperWork) -> Array:
    """The least weights were dropped where the last tokens are: later ones decided."""
    return ranked(_reading(w, order="weight"))


@_trap("by-position-where-by-weight", "rank", _MEGATRON)
def _(w: DropperWork) -> Array:
    """The last tokens were dropped where the least weights are."""
    return ranked(_reading(w, order="token") if w.config.order == "weight" else w)


# What survivors weigh.


@_trap("rescaled-where-kept", "weights", _AXOLOTL, "M74")
def _(w: DropperWork) -> Any:
    """Survivors were scaled up to their token's sum."""
    return _weighed(w, "kept", "rescaled")


@_trap("normalized-where-rescaled", "weights", _DEEPSPEED, "M74")
def _(w: DropperWork) -> Any:
    """Survivors were scaled to 1, and the scale of the router was lost."""
    return _weighed(w, "rescaled", "normalized")


@_trap("kept-where-normalized", "weights", _MEGATRON, "M74")
def _(w: DropperWork) -> Any:
    """Survivors were left as they were."""
    return _weighed(w, "normalized", "kept")


def _weighed(w: DropperWork, claimed: str, instead: str) -> Any:
    """Return the weights under another rule, where one is claimed."""
    if w.config.survivors != claimed:
        return DROPPING["weights"](w)
    other = _reading(w, survivors=instead)
    vars(other)["kept"] = w.kept
    return DROPPING["weights"](other)
