"""Stages that are wrong in one path of a kernel alone: its sizes beside biases, absent routes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.residents import WHOLE
from moe_routing.conformance.zoo.router import learner, permuter, runner
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.implementations import Capabilities
from moe_routing.reference.activations import CLAMPED
from moe_routing.reference.routes import ABSENT

Wrong = Callable[[Any], Any]
Row = tuple[Callable[..., Any], str, Wrong, Capabilities]

ZERO = np.float32(0)
run, learn = runner.StagedRunner, learner.StagedLearner
permute = permuter.StagedPermuter


def cut(stage: str, step: int, block: int) -> Wrong:
    """Columns past whole blocks are lost where their number is a multiple of a smaller step."""

    def wrong(w: Any) -> Array:
        found = np.array(w.right(stage))
        size = found.shape[1]
        if size > block and size % step == 0 and size % block:
            found[:, size - size % block :] = ZERO
        return found

    return wrong


def past(stage: str, number: int, axis: int = 0) -> Wrong:
    """A stage that leaves 0 from ``number`` on."""

    def wrong(w: Any) -> Array:
        found = np.array(w.right(stage))
        found[(slice(None),) * axis + (slice(number, None),)] = ZERO
        return found

    return wrong


def unscaled_if_wide(w: Any) -> Array:
    """Wide tokens were not scaled by a weight that is on the input."""
    x: Array = w.inputs.hidden[w.tokens]
    return x if w.inputs.hidden_size > 64 else w.right("x")


def unclamped_if_wide(w: Any) -> Array:
    """Wide experts were not clamped."""
    if w.config.activation != CLAMPED or w.inputs.width <= 64:
        return runner.activated(w)
    return runner.clamped(w, w.gate, w.up, 1e30, w.config.alpha)


def short_alone(w: Any) -> Array:
    """A token that is alone was read in whole warps."""
    return cut("x", 1, 32)(w) if w.inputs.num_tokens == 1 else w.right("x")


def unbiased_if_many(w: Any) -> Array:
    """Batches of many tokens took a path without the last bias."""
    if w.inputs.num_tokens <= 65:
        return w.right("answers")
    return w.stored(runner.product(w, w.inner, "down"))


def full_block_short(w: Any) -> Array:
    """An expert with exactly 96 rows lost what is past two thirds of them."""
    found = np.array(runner.weighed(w))
    for expert in np.flatnonzero(np.bincount(w.owners, minlength=1) == 96):
        found[np.flatnonzero(w.owners == expert)[64:]] = ZERO
    return found


def half_a_group(w: Any) -> Array:
    """Tiles in groups of eight: those past the last whole group had their first columns alone."""
    found = np.array(runner.weighed(w))
    ends = np.unique(w.owners)
    if found.shape[1] > 64 and len(ends) > 8:
        late = np.isin(w.owners, ends[len(ends) // 8 * 8 :])
        found[late, 64:] = ZERO
    return found


def without_the_last(experts: int) -> Wrong:
    """The last of exactly so many experts was not run."""

    def wrong(w: Any) -> Array:
        lost = (w.ids == experts - 1) & (w.config.num_experts == experts)
        return np.where(lost, ZERO, w.right("weights"))

    return wrong


def absent_in_a_byte(w: Any) -> Array:
    """Ids were kept in a byte, where 255 stood for an absent route."""
    ids: Array = w.inputs.expert_ids
    return np.where(ids == 255, ABSENT, ids)


def after_an_empty_warp(w: Any) -> Array:
    """A scan ended at 32 empty experts: rows after it met the matrices of experts before."""
    owners: Array = w.right("owners")
    empty = owners.size > 0 and owners.min() >= 32
    return owners - 32 if empty else owners


def in_splits(w: Any) -> Array:
    """Parts of 64 columns of a product were added in 16 bits."""
    if w.inputs.dtype == "float32":
        return w.right("up")
    matrix = w.matrices["up_weight"][w.owners]
    out = np.zeros((len(w.x), matrix.shape[1]), np.float32)
    for start in range(0, w.x.shape[1], 64):
        part = slice(start, start + 64)
        out = w.stored(out + w.stored(np.einsum("nk,nfk->nf", w.x[:, part], matrix[:, :, part])))
    return out


def by_a_product(w: Any) -> Array:
    """Rows were put back by a product with zeros and ones: 0 times infinity is NaN."""
    places = np.zeros((w.inputs.num_tokens, len(w.tokens)), np.float32)
    places[w.tokens, np.arange(len(w.tokens))] = 1
    return w.stored(places @ w.weighted)


def packed_once(w: Any) -> dict[str, Array]:
    """Matrices were packed once for each array, whatever was written into it later."""
    up = w.inputs.up_weight
    key = up.ctypes.data, up.shape
    held = w.memory.setdefault(
        key, (up, {n: each.copy() for n, each in w.right("matrices").items()})
    )
    return held[1]


def sorted_once(w: Any) -> Array:
    """Ids were read once for each array, whatever was written into it later."""
    ids = w.routes.expert_ids
    held = w.memory.setdefault((ids.ctypes.data, ids.shape), (ids, w.routes.experts.copy()))
    return held[1]


# On the way back.


def rows_of(test: Callable[[int], slice]) -> Wrong:
    """A gradient that misses some of an expert's rows, by how many there are."""

    def wrong(w: Any) -> Array:
        at = np.array(w.at_up)
        for expert in np.unique(w.forward.owners):
            rows = np.flatnonzero(w.forward.owners == expert)
            at[rows[test(len(rows))]] = ZERO
        return learner.of_matrix(w, at, w.forward.x)

    return wrong


def of_bias_past(number: int) -> Wrong:
    """A bias learned from an expert's first ``number`` rows."""

    def wrong(w: Any) -> Array | None:
        at = np.array(w.at_up)
        for expert in np.unique(w.forward.owners):
            at[np.flatnonzero(w.forward.owners == expert)[number:]] = ZERO
        return learner.of_bias(w, at, "up")

    return wrong


def unscaled_back_if_wide(w: Any) -> Array:
    """Gradients of wide tokens were not scaled by a weight that is on the input."""
    if w.late or w.inputs.hidden_size <= 64:
        return w.right("of_hidden")
    total = np.zeros(w.inputs.hidden.shape, np.float32)
    np.add.at(total, w.forward.tokens, w.at_x)
    return w.stored(total)


def unclamped_back_if_wide(w: Any) -> Array:
    """What wide experts clamp went on learning."""
    if w.config.activation != CLAMPED or w.inputs.width <= 64:
        return w.right("at_up")
    limit, alpha = np.float32(w.config.limit), np.float32(w.config.alpha)
    held = np.minimum(w.forward.gate, limit)
    return w.stored(w.at_inner * held * runner.sigmoid(alpha * held))


def slope_lost_if_wide(w: Any) -> Array:
    """Wide experts without a gate had a slope of 1."""
    plain = not w.config.gated and w.inputs.width > 64
    return w.at_inner if plain else w.right("at_up")


def unwritten_if_many(w: Any) -> Array:
    """Empty experts past the 16th had a gradient of whatever memory held."""
    found = np.array(w.right("of_up_weight"))
    if len(found) > 16:
        found[np.setdiff1d(np.arange(len(found)), w.forward.owners)] = np.float32(7)
    return found


def in_a_byte(w: Any) -> Array:
    """The way back read the matrices of an id in a byte."""
    matrix = w.forward.matrices["down_weight"][w.forward.owners & 0xFF]
    return w.stored(np.einsum("nh,nhf->nf", w.at_answers, matrix))


def by_the_weight(w: Any) -> Array:
    """The gradient of a weight was taken of the weighted answer, and divided by the weight."""
    right, weights = w.right("of_weights"), w.inputs.weights
    return np.where(w.inputs.expert_ids < 0, ZERO, right * weights / weights)


def _match(slug: str, stage: str, wrong: Wrong) -> dict[tuple[str, str], Row]:
    return {("experts.match", f"ran-{slug}"): (run, stage, wrong, WHOLE)}


def _back(slug: str, stage: str, wrong: Wrong) -> dict[tuple[str, str], Row]:
    return {("experts.gradients", f"learned-{slug}"): (learn, stage, wrong, WHOLE)}


MIXED: dict[tuple[str, str], Row] = {
    **_match("mixed:96-columns", "output", cut("output", 32, 64)),
    **_match("mixed:96-width", "inner", cut("inner", 32, 64)),
    **_match("columns:80", "output", cut("output", 16, 64)),
    **_match("columns:128", "x", cut("x", 128, 127)),
    **_match("columns:144", "x", cut("x", 16, 128)),
    **_match("columns:384", "output", cut("output", 128, 256)),
    **_match("width:80", "inner", cut("inner", 16, 64)),
    **_match("width:128", "inner", cut("inner", 128, 127)),
    **_match("width:144", "inner", cut("inner", 16, 128)),
    **_match("width:384", "inner", cut("inner", 128, 256)),
    **_match("mixed:192-columns", "x", unscaled_if_wide),
    **_match("mixed:192-width", "inner", unclamped_if_wide),
    **_match("mixed:one-token", "x", short_alone),
    **_match("mixed:530-tokens", "answers", unbiased_if_many),
    **_match("mixed:rows-of-blocks", "weighted", full_block_short),
    **_match("mixed:20-experts", "weighted", half_a_group),
    **_match("mixed:32-experts", "weights", without_the_last(32)),
    **_match("mixed:64-experts", "owners", after_an_empty_warp),
    **_match("mixed:128-experts", "weights", without_the_last(128)),
    **_match("mixed:256-experts", "ids", absent_in_a_byte),
    **_match("large:7170-columns", "weighted", past("weighted", 4096, 1)),
    **_match("large:4100-width", "inner", past("inner", 4096, 1)),
    ("experts.exact", "ran-exact-wide"): (run, "up", in_splits, WHOLE),
    ("experts.batch-split", "ran-chosen-inf"): (run, "output", by_a_product, WHOLE),
    ("experts.repeatable", "ran-several"): (run, "matrices", packed_once, WHOLE),
    ("permutation.repeatable", "permuted-several"): (permute, "ids", sorted_once, WHOLE),
    **_back("mixed:96-columns", "of_hidden", cut("of_hidden", 32, 64)),
    **_back("mixed:96-width", "at_up", slope_lost_if_wide),
    **_back("mixed:192-columns", "of_hidden", unscaled_back_if_wide),
    **_back("mixed:192-width", "at_up", unclamped_back_if_wide),
    **_back("mixed:one-token", "of_hidden", cut("of_hidden", 1, 256)),
    **_back("mixed:530-tokens", "of_up_bias", of_bias_past(128)),
    **_back("mixed:rows-of-blocks", "of_up_weight", rows_of(lambda n: slice(n * (n != 32), n))),
    **_back("mixed:20-experts", "of_hidden", cut("of_hidden", 2, 64)),
    **{
        key: row
        for number in (32, 64, 128, 256)
        for key, row in _back(f"mixed:{number}-experts", "of_up_weight", unwritten_if_many).items()
    },
    **_back("large:144-columns", "of_hidden", cut("of_hidden", 16, 128)),
    **_back("large:300-experts", "at_inner", in_a_byte),
    **_back("large:4100-routes", "of_up_weight", rows_of(lambda n: slice(4096, n))),
    **_back("zero-weight", "of_weights", by_the_weight),
}
"""What is wrong, by the clause and the event that show it."""


def _bins(experts: int) -> Wrong:
    """Absent routes were counted for the last of exactly so many experts."""

    def wrong(w: Any) -> Array:
        last = (np.arange(w.experts) == experts - 1) & (w.experts == experts)
        return np.asarray(w.counts + last * np.count_nonzero(w.ids < 0))

    return wrong


def by_a_mask(w: Any) -> Array:
    """Counts were rounded up with the bits of the alignment, of which there must be one."""
    align = w.config.align
    rounded = (w.counts + align - 1) & ~(align - 1)
    return np.where(w.counts == 0, w.config.empty_takes, rounded)


def reversed_repeats(w: Any) -> Array:
    """Slots of one token with one expert changed places."""
    order = permuter.by_expert(w)
    keys = w.ids[order] * (w.routes.num_tokens + 1) + order // w.routes.top_k
    return order[np.lexsort((-order, keys))]


def _permutation(clause: str, slug: str, stage: str, wrong: Wrong) -> dict[tuple[str, str], Row]:
    return {(f"permutation.{clause}", f"permuted-{slug}"): (permute, stage, wrong, WHOLE)}


PERMUTED: dict[tuple[str, str], Row] = {
    **_permutation(
        "weights-follow", "signed-weights", "weights", lambda w: abs(w.right("weights"))
    ),
    **_permutation(
        "conserved",
        "signed-weights",
        "ids",
        lambda w: np.where(w.routes.weights.reshape(-1) == 0, ABSENT, w.routes.experts),
    ),
    **_permutation("aligned", "odd-alignment", "sizes", by_a_mask),
    **_permutation("stable", "repeated-expert", "order", reversed_repeats),
    **{
        key: row
        for number in (32, 64, 128, 256, 512)
        for key, row in _permutation(
            "counts", f"half-empty:{number}", "reported_counts", _bins(number)
        ).items()
    },
    **_permutation(
        "inverse",
        "slots-above-32",
        "inverse",
        lambda w: (
            w.right("inverse")
            .reshape(-1, w.routes.top_k)[:, np.arange(w.routes.top_k) & 31]
            .reshape(-1)
        ),
    ),
    **_permutation("gather", "tokens-above-65535", "gather", lambda w: w.right("gather") & 0xFFFF),
}
"""The same of permutations."""
