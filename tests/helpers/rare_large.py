"""Stages that are wrong from a size on: capacities, balance, replay, padding, shards, layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from rare_mixed import Row, Wrong, past
from rare_stages import only

from moe_routing.conformance.zoo.residents import WHOLE
from moe_routing.conformance.zoo.router import (
    balancer,
    composer,
    dropper,
    padder,
    ranks,
    replayer,
    sharder,
)
from moe_routing.conformance.zoo.router.functions import Array

drop, balance = dropper.StagedDropper, balancer.StagedBalancer
replay, pad = replayer.StagedReplayer, padder.StagedPadder
shard, compose = sharder.StagedSharder, composer.StagedComposer


def _rows(
    chapter: str, make: Callable[..., Any], rows: dict[tuple[str, str], tuple[str, Wrong]]
) -> dict[tuple[str, str], Row]:
    return {
        (f"{chapter}.{clause}", event): (make, stage, wrong, WHOLE)
        for (clause, event), (stage, wrong) in rows.items()
    }


# Capacities.


def places_in_16_bits(w: Any) -> Array:
    """Places were counted in float16, which holds no odd number above 2,048."""
    return dropper.placed(w.ids, w.rank).astype(np.float16).astype(np.int64)


def weights_in_16_bits(w: Any) -> Array:
    """Weights were compared in float16."""
    by_weight = w.config.order == "weight"
    return -w.routes.weights.astype(np.float16) if by_weight else dropper.ranked(w)


def late_slots_stay(w: Any) -> Array:
    """Slots past the eighth were not held to the capacity."""
    late = (np.arange(w.top_k) >= 8) & (w.ids >= 0)
    return dropper.DROPPING["kept"](w) | late


def kept_past_a_block(w: Any) -> Array:
    """Tokens past 1,024 were left as they were, where survivors are scaled."""
    found = np.array(dropper.surviving(w))
    found[1024:] = np.where(w.kept, w.before, 0)[1024:]
    return found


DROPPED = _rows(
    "capacity",
    drop,
    {
        ("respected", "dropped-large:4098-tokens"): ("place", places_in_16_bits),
        **{
            ("survivors", f"dropped-large:1030-tokens-{rule}"): ("weights", kept_past_a_block)
            for rule in ("rescaled", "normalized")
        },
        ("order", "dropped-large:2062-tokens-by-weight"): ("rank", weights_in_16_bits),
        **{
            ("respected", f"dropped-large:{number}-experts"): ("kept", late_slots_stay)
            for number in (64, 128, 256)
        },
    },
)


# Balance.


def layers_past(number: int, stage: str) -> Wrong:
    """Layers from a number on had no part."""

    def wrong(w: Any) -> Array:
        found = np.array(balancer.BALANCING[stage](w))
        found[number:] = 0
        return found

    return wrong


def counts_in_16_bits(w: Any) -> Array:
    """Ones were added up in float16."""
    return balancer.BALANCING["counted"](w).astype(np.float16).astype(np.int64)


def last_bin_lost(w: Any) -> Array:
    """A histogram had a bin too few where the number of experts is a power of two above 32."""
    counts: Array = np.array(balancer.BALANCING["counted"](w))
    if w.experts > 32 and w.experts & (w.experts - 1) == 0:
        counts[:, -1] = 0
    return counts


BALANCED = _rows(
    "balance",
    balance,
    {
        ("counts", "balanced-large:9-layers-sum"): ("counted", layers_past(4, "counted")),
        ("aux-loss", "balanced-large:9-layers-mean"): ("factors", layers_past(8, "factors")),
        ("aux-loss", "balanced-large:9-layers-pooled"): ("scores", layers_past(8, "scores")),
        ("z-loss", "balanced-large:9-layers-sum"): ("z_values", layers_past(4, "z_values")),
        ("counts", "balanced-large:4101-tokens"): ("counted", counts_in_16_bits),
        **{
            ("counts", f"balanced-large:{number}-experts"): ("counted", last_bin_lost)
            for number in (64, 128, 256)
        },
    },
)


# Replay, padding, shards, layers.


def layer_in_3_bits(w: Any) -> int | None:
    """The layer was kept in three bits."""
    layer = w.recorded.layer
    return None if layer is None else layer & 7


def recorded_above_0(w: Any) -> Array | None:
    """Recorded weights were taken to be above 0."""
    held = replayer.held(w)
    return None if held is None else abs(held)


def count_in_a_byte(w: Any) -> Array:
    """The number of tokens was kept in a byte."""
    if w.padding.told != "count":
        valid: Array = w.padding.valid
        return valid
    return np.arange(len(w.padding.real)) < (int(w.padding.real.sum()) & 0xFF)


def ids_in_a_byte(w: Any) -> Array:
    """Local ids were kept in a byte with a sign."""
    ids: Array = w.right("ids")
    return np.where(ids < 0, ids, ids & 0x7F)


LARGE: dict[tuple[str, str], Row] = {
    **DROPPED,
    **BALANCED,
    ("replay.layers", "replayed-layer-above-8"): (replay, "layer", layer_in_3_bits, WHOLE),
    ("replay.recorded-weights", "replayed-signed-weights"): (
        replay,
        "held",
        recorded_above_0,
        WHOLE,
    ),
    ("padding.tokens", "padded-tokens-above-1024"): (pad, "valid", count_in_a_byte, WHOLE),
    ("shards.sum", "spread-large:130-columns"): (shard, "part", past("part", 128, 1), WHOLE),
    ("shards.sum", "spread-large:300-experts"): (shard, "ids", ids_in_a_byte, WHOLE),
    ("shards.sum", "spread-large:20-ranks"): (shard, "ids", only(ranks=16), WHOLE),
    ("shards.sum", "spread-large:1030-tokens"): (shard, "ids", only(rows=1024), WHOLE),
    **_rows(
        "layer",
        compose,
        {
            ("composes", "layer-large:70-tokens"): ("output", past("output", 64)),
            ("composes", "layer-large:1030-tokens"): ("output", past("output", 1024)),
            ("composes", "layer-large:9-slots"): ("weights", past("weights", 8, 1)),
            **{
                ("composes", f"layer-large:{number}-experts"): (
                    "weights",
                    lambda w, last=number - 1: np.where(w.ids == last, 0, w.router.weights),
                )
                for number in (64, 128, 257)
            },
        },
    ),
}
"""What is wrong, by the clause and the event that show it."""


# Ranks.


def rows_of_a_rank(w: Any) -> list[Array]:
    """A rank's buffer had room for 256 tokens: what came after them was 0."""
    found = [np.array(each) for each in w.right("answer")]
    for each in found:
        each[256:] = 0
    return found


def late_experts_left_out(w: Any) -> Array:
    """Local experts from the 64th on were not sent anything."""
    target = np.array(w.right("target"))
    for rank in w.ranks:
        target[(target == rank) & (w.number[rank][w.ids] >= 64)] = -1
    return target


def columns_of_64(w: Any) -> dict[str, Array]:
    """Gradients of hidden states came back in packets of 64 columns, of which one was sent."""
    found = {name: np.array(each) for name, each in w.right("of_tokens").items()}
    found["hidden"][:, 64:] = 0
    return found


LARGE |= {
    **_rows(
        "shards",
        ranks.StagedRanks,
        {
            ("on-ranks", "ranked-large:130-columns"): ("summed", past("summed", 64, 1)),
            ("on-ranks", "ranked-large:300-tokens"): ("answer", rows_of_a_rank),
            ("on-ranks", "ranked-large:70-experts"): ("target", late_experts_left_out),
            ("gradients", "ranked-large:learned-130-columns"): ("of_tokens", columns_of_64),
        },
    )
}
