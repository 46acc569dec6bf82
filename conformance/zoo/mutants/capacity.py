"""Mutants of capacities: what was not applied, applied to others, or left on what is dropped."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.dropper import (
    DROPPING,
    DropperWork,
    StagedDropper,
    placed,
    ranked,
    rounded,
)
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.memory import overwrite
from moe_routing.reference import Routing
from moe_routing.reference.routes import ABSENT

dropper = partial(mutant, makes=StagedDropper)
_SWITCH = "huggingface/transformers 5.23.0, modeling_switch_transformers"


# A capacity that is not applied.


@dropper("policy-misspelt", "M72", "kept", real="NVIDIA/Megatron-LM@7968fd6532")
def _(w: DropperWork) -> Any:
    """The option was compared with a word that it never is: nothing was dropped by weight."""
    return w.ids != ABSENT if w.config.order == "weight" else DROPPING["kept"](w)


@dropper("places-along-the-wrong-axis", "M72", "place", real="huggingface/transformers#48293")
def _(w: DropperWork) -> Array:
    """Places were summed along an axis of one element: all were first, and none was dropped."""
    return np.zeros(w.ids.shape, np.int64)


@dropper("second-slots-not-held-to-it", "M72", "kept", real="deepspeedai/DeepSpeed#1658")
def _(w: DropperWork) -> Any:
    """One branch alone applied the capacity: experts were filled past their buffers."""
    right: Array = DROPPING["kept"](w)
    return right | ((w.ids != ABSENT) & (np.arange(w.top_k) > 0))


@dropper("places-of-each-slot", "M72", "place", real="microsoft/Tutel@ae44c2b")
def _(w: DropperWork) -> Array:
    """Every slot counted its places anew, over those of the slot before."""
    rank = ranked(w)
    columns = [placed(w.ids[:, [k]], rank[:, [k]]) for k in range(w.top_k)]
    return np.concatenate(columns, axis=1)


@dropper("zero-factor-taken-for-unset", "M72", "capacity", real="microsoft/Tutel@25b3734")
def _(w: DropperWork) -> int:
    """A factor of 0 was false, and the default stood in for it."""
    factor = w.config.factor or 1.0
    return max(rounded(w, w.share * factor), w.config.minimum)


@dropper("minimum-lost-for-two-slots", "M72", "capacity", real="deepspeedai/DeepSpeed#1827")
def _(w: DropperWork) -> int:
    """One of three functions had no minimum: small batches dropped what it was to keep."""
    right: int = DROPPING["capacity"](w)
    plain = w.config.unlimited or w.top_k != 2
    return right if plain else rounded(w, w.share * w.config.factor)


@dropper("capacity-above-the-batch-raises", "M72", "kept", real="NVIDIA/Megatron-LM@ecb948e583")
def _(w: DropperWork) -> Any:
    """The best of more tokens than there are were asked for."""
    if w.capacity > w.tokens:
        raise RuntimeError("selected index k out of range")
    return DROPPING["kept"](w)


@dropper("minimum-above-the-batch-raises", "M72", "capacity", real="deepspeedai/DeepSpeed#8155")
def _(w: DropperWork) -> Any:
    """A batch below the minimum ended the job of the rank that had it."""
    assert w.config.minimum <= w.tokens, "No. of tokens should be greater than min_capacity."
    return DROPPING["capacity"](w)


# A capacity that is applied to other routes.


@dropper("overflow-into-the-next-expert", "M72", "answer", real="microsoft/Tutel#289")
def _(w: DropperWork) -> Routing:
    """A place past the capacity lies in the rows of the next expert, which ran the token."""
    lost = (w.ids != ABSENT) & ~w.kept
    ids = np.where(w.kept, w.ids, ABSENT)
    return Routing(
        weights=w.weights, expert_ids=np.where(lost, (w.ids + 1) % w.config.num_experts, ids)
    )


@dropper("first-token-repeated", "M72", "answer", real="NVIDIA/Megatron-LM@9bbb40dd65")
def _(w: DropperWork) -> Routing:
    """The rest of a buffer was filled with routes that were in it already."""
    ids = np.where(w.kept, w.ids, ABSENT)
    stays = w.kept.any(axis=1)
    first = np.where(stays, ids[np.arange(w.tokens), w.kept.argmax(axis=1)], ABSENT)
    lost = (w.ids != ABSENT) & ~w.kept
    return Routing(weights=w.weights, expert_ids=np.where(lost, first[:, None], ids))


@dropper("absent-taken-by-expert-0", "M72", "ids", real="axolotl-ai-cloud/axolotl@45a17e925")
def _(w: DropperWork) -> Array:
    """Sentinels were clamped to a real expert, and took its room."""
    return np.maximum(w.routes.expert_ids, 0)


@dropper("padding-takes-room", "M72", "place", real="NVIDIA/Megatron-LM#2142")
def _(w: DropperWork) -> Array:
    """Tokens of padding were dropped with the others, after they had taken their place."""
    return placed(np.maximum(w.ids, 0), w.rank)


@dropper("kept-from-the-end", "M72", "rank", real="NVIDIA/Megatron-LM 0.16.1, moe_utils")
def _(w: DropperWork) -> Any:
    """The best of ones and zeros are any of the ones: the last tokens were kept for the first."""
    right = ranked(w)
    return right if w.config.order == "weight" else -right


# What is left on routes.


@dropper("survivors-not-rescaled", "M74", "weights", real="axolotl-ai-cloud/axolotl@8284de3a2")
def _(w: DropperWork) -> Any:
    """Weights were not brought back to their sum: who lost an expert came out weaker."""
    if w.config.survivors == "rescaled":
        return np.where(w.kept, w.before, np.float32(0))
    return DROPPING["weights"](w)


@dropper("lost-token-divides-by-zero", "M74", "weights", real="axolotl-ai-cloud/axolotl#3781")
def _(w: DropperWork) -> Any:
    """A token that lost all was rescaled by 0 / 0, and NaN went through the whole model."""
    if w.config.survivors in ("kept", "free"):
        return DROPPING["weights"](w)
    after = np.where(w.kept, w.before, np.float32(0))
    whole = w.before.sum(axis=1, keepdims=True) if w.config.survivors == "rescaled" else 1
    with np.errstate(all="ignore"):
        return after * (whole / after.sum(axis=1, keepdims=True)).astype(np.float32)


@dropper("dropped-keep-their-weights", "M74", "weights", real=_SWITCH)
def _(w: DropperWork) -> Any:
    """The mask was put on ids alone: a dropped token was still scaled, and added."""
    return np.where(w.kept, DROPPING["weights"](w), w.before)


@dropper("rescaled-over-the-batch", "M74", "weights", real="huggingface/transformers#28517")
def _(w: DropperWork) -> Any:
    """Sums were taken over tokens where they are over slots."""
    after = np.where(w.kept, w.before, np.float32(0))
    if w.config.survivors != "rescaled" or not after.sum():
        return DROPPING["weights"](w)
    return after * (w.before.sum() / after.sum())


# Calls.


@dropper("no-tokens-no-share", "M53", "share", real="laekov/fastmoe#107")
def _(w: DropperWork) -> float:
    """A rank without tokens divided by their number."""
    right: float = DROPPING["share"](w)
    return right * (w.tokens // w.tokens)


@dropper("ids-dropped-in-place", "M61", "answer", real="axolotl-ai-cloud/axolotl#3714")
def _(w: DropperWork) -> Routing:
    """Dropped ids were overwritten in the caller's own, which the loss counted."""
    answer: Routing = DROPPING["answer"](w)
    overwrite(w.routes.expert_ids, answer.expert_ids)
    return answer


@dropper("weights-dropped-in-place", "M61", "answer", real="NVIDIA/TransformerEngine#2547")
def _(w: DropperWork) -> Routing:
    """The caller's weights were overwritten with those of the survivors."""
    answer: Routing = DROPPING["answer"](w)
    overwrite(w.routes.weights, answer.weights)
    return answer
