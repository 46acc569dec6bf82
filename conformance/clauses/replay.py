"""Clauses of the chapter on replay (docs/spec/replay.md)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from moe_routing.conformance.clauses.relations import raised
from moe_routing.conformance.clauses.replay_calls import another, held, lists, replay_clause
from moe_routing.conformance.explain.failure import Failure, at
from moe_routing.conformance.explain.numbers import show
from moe_routing.conformance.explain.replay import call_lines, replay_failure
from moe_routing.conformance.trial.base import Unchecked
from moe_routing.conformance.trial.replay import ReplayTrial
from moe_routing.reference import Recorded

ANY_ABSENCE = ("none", "some", "tokens")


@replay_clause(
    "forced",
    "A trainer that runs other experts than the engine did, or weighs them by another router's "
    "scores, learns from a policy that nobody sampled from.",
    rules=("RPL-1", "RPL-2", "RPL-3"),
    bugs=("M76",),
    events=(
        *("replayed-elsewhere", "replayed-unsorted", "replayed-normed", "replayed-not-normed"),
        *("replayed-scaled", "replayed-expert-scale", "replayed-biased", "replayed-grouped"),
        *("replayed-tiny-norm", "replayed-tokens-above-256"),
    ),
    most=None,
)
def forced(trial: ReplayTrial) -> Failure | None:
    """Recorded experts come back slot by slot, with the router's own weights at them."""
    return held(trial)


@replay_clause(
    "masked-scores",
    "A mask of the trainer's own choice weighs recorded experts with 0: they ran, and get nothing.",
    rules=("RPL-3",),
    bugs=("M76",),
    events=("replayed-masked",),
    narrow={"weights_from": ("masked_scores",), "groups": (True,)},
    needs=lists("masked"),
)
def masked_scores(trial: ReplayTrial) -> Failure | None:
    """Nothing is chosen again: a recorded expert of a group that would be masked has its score."""
    return held(trial)


@replay_clause(
    "repeated",
    "Records hold an expert twice, from padding if nowhere else; a scatter adds both weights to "
    "each, or loses one.",
    rules=("RPL-4",),
    bugs=("M76",),
    events=("replayed-repeated",),
    records={"repeated experts": (True,)},
    needs=lists("repeats"),
)
def repeated(trial: ReplayTrial) -> Failure | None:
    """An expert in several slots of a token keeps each of them, with a weight of its own."""
    return held(trial)


@replay_clause(
    "absent-rows",
    "A sentinel that is written to expert 0 wipes that expert's weight; one that enters the norm "
    "shrinks all others.",
    rules=("RPL-5", "RPL-6"),
    bugs=("M46", "M47", "M76"),
    events=(
        *("replayed-some-absent", "replayed-absent-beside-first", "replayed-absent-normed"),
        *("replayed-token-absent", "replayed-all-absent"),
        *("replayed-absent-in-softmax", "replayed-absent-scaled"),
    ),
    records={"absence": ("some", "tokens"), "recorded weights": (False,)},
    needs=lists("absent"),
)
def absent_rows(trial: ReplayTrial) -> Failure | None:
    """An absent route stays -1, weighs 0, and changes no other expert's weight."""
    return held(trial)


@replay_clause(
    "recorded-weights",
    "A record with weights is taken for its weights: recomputed ones differ by what the two "
    "routers' rounding does.",
    rules=("RPL-7", "RPL-5"),
    bugs=("M76",),
    events=(
        *("replayed-weights", "replayed-fine-weights", "replayed-absent-weights"),
        "replayed-signed-weights",
    ),
    records={"recorded weights": (True,), "absence": ANY_ABSENCE},
    needs=lists("weights"),
)
def recorded_weights(trial: ReplayTrial) -> Failure | None:
    """Recorded weights come back bit for bit, and 0 where the route is absent."""
    return held(trial)


@replay_clause(
    "own-record",
    "A router that does not reproduce itself from its own record hides every real difference "
    "behind one of its own.",
    rules=("RPL-8",),
    bugs=("M76",),
    events=("replayed-elsewhere",),
    records={"recorded weights": (False,)},
    needs=lists("unrecorded"),
)
def own_record(trial: ReplayTrial) -> Failure | None:
    """The backend's own choice, recorded and replayed, is the same answer, bit for bit."""
    tokens, top_k = trial.case.num_tokens, trial.case.config.top_k
    nothing = Recorded(expert_ids=np.zeros((tokens, 1, top_k), np.int64), layer=None)
    free = another(trial, nothing)
    ids = free.answer.expert_ids
    try:
        again = another(trial, Recorded(expert_ids=ids[:, None].copy()))
    except ValueError as error:  # ids that are none: other clauses are about them
        raise Unchecked("its own choice is no record") from error
    if (failure := replay_failure(again.verdict)) is not None:
        return replace(failure, made=again.case)
    masked = trial.case.config.weights_from == "masked_scores"  # of which a replay masks nothing
    if masked or not free.in_slots or not trial.capabilities.replays.same_bits:
        return None
    return _not_its_own(free, again)


def _not_its_own(free: ReplayTrial, again: ReplayTrial) -> Failure | None:
    """Return the first weight that its own record does not give back bit for bit."""
    first, second = free.answer.weights, again.answer.weights
    differs = ~((first == second) | (np.isnan(first) & np.isnan(second)))
    if not differs.any():
        return None
    t, k = (int(i) for i in np.argwhere(differs)[0])
    summary = (
        f"{at('weights', t, k)}={show(second[t, k])} from its own record, but it was "
        f"{show(first[t, k])} when it chose"
    )
    return Failure(
        stage="weights", token=t, summary=summary, details=call_lines(again.facts), made=again.case
    )


@replay_clause(
    "rows",
    "Trainers sort, pack and pad: a token that gets its neighbour's experts is wrong from there to "
    "the end of the batch.",
    rules=("RPL-9",),
    bugs=("M76",),
    events=("replayed-reordered", "replayed-order-of-three", "replayed-packed"),
    records={"rows": ("reordered", "packed")},
    needs=lists("rows"),
)
def rows(trial: ReplayTrial) -> Failure | None:
    """In a reordered, packed or padded batch every token has its own row of the record."""
    return held(trial)


@replay_clause(
    "padding",
    "Padding of a record is not padding of a batch: rows of K equal experts, or the last row by a "
    "negative index, send tokens of nothing to real experts.",
    rules=("RPL-10",),
    bugs=("M47", "M55", "M76"),
    events=("replayed-padded",),
    records={"rows": ("padded",)},
    needs=lambda capabilities: lists("rows")(capabilities) or lists("absent")(capabilities),
)
def padding(trial: ReplayTrial) -> Failure | None:
    """A token without a row has absent routes alone, and takes none from another token."""
    return held(trial)


@replay_clause(
    "layers",
    "Dense layers, pipeline stages and MTP layers shift the count: each layer then replays its "
    "neighbour's routes, and no shape says so.",
    rules=("RPL-11",),
    bugs=("M76",),
    events=(
        *("replayed-layers", "replayed-later-layer", "replayed-last-layer"),
        "replayed-layer-above-8",
    ),
    records={"layers": (2, 3)},
    needs=lists("layers"),
)
def layers(trial: ReplayTrial) -> Failure | None:
    """Each layer replays its own record."""
    return held(trial)


@replay_clause(
    "unrecorded",
    "An MTP layer is no layer of the engine's record: with the decoder's routes it runs experts "
    "that nobody chose for it.",
    rules=("RPL-12",),
    bugs=("M76",),
    events=("replayed-unrecorded",),
    records={"unrecorded": (True,)},
    needs=lists("unrecorded"),
)
def unrecorded(trial: ReplayTrial) -> Failure | None:
    """A layer without a record routes by itself."""
    return held(trial)


@replay_clause(
    "wide-ids",
    "Records are kept small: ids in a byte end at 255, in a short at 32,767.",
    rules=("RPL-1",),
    bugs=("M44", "M76"),
    events=("replayed-id-above-255", "replayed-id-above-32767"),
    offers={"num_experts": (256, 257, 300, 384, 512)},
    most=5,
)
def wide_ids(trial: ReplayTrial) -> Failure | None:
    """Experts above 255 and above 32,767 come back as recorded."""
    return held(trial)


@replay_clause(
    "written",
    "Buffers outlive a batch: what no route wrote there is the last one's, and looks like a route.",
    rules=("RPL-13",),
    bugs=("M34", "M48", "M76"),
    events=("replayed-elsewhere", "replayed-some-absent"),
    records={"absence": ANY_ABSENCE},
)
def written(trial: ReplayTrial) -> Failure | None:
    """After a call with another record, which filled every slot, the answer is the call's own."""
    first = trial.case.inputs.recorded
    if first.layer is None:
        raise Unchecked("there is no record of the layer")
    others = (np.maximum(first.ids, 0) + 1) % trial.case.config.num_experts
    weights = None if first.weights is None else np.ones((len(others), 1, first.top_k), np.float32)
    _ = another(trial, Recorded(expert_ids=others[:, None], weights=weights)).native
    return held(trial)


@replay_clause(
    "strided",
    "A buffer of K + S slots, S of them for shared experts, read as one of K gives every token "
    "after the first the routes of another.",
    rules=("RPL-14",),
    bugs=("M40", "M76"),
    events=("replayed-strided",),
    records={"strided": (True,)},
    needs=lists("strided"),
)
def strided(trial: ReplayTrial) -> Failure | None:
    """A record whose tokens do not lie next to one another in memory is read by its strides."""
    return held(trial)


@replay_clause(
    "untouched",
    "The same record is replayed in the recomputation of the backward pass, and by the next epoch.",
    rules=("RPL-15",),
    bugs=("M61",),
    events=("replayed-elsewhere", "replayed-unsorted"),
    records={"absence": ANY_ABSENCE},
)
def untouched(trial: ReplayTrial) -> Failure | None:
    """The call leaves its inputs and the record as they were."""
    if not trial.changed:
        return None
    summary = f"wrote to its inputs: {', '.join(trial.changed)}"
    return Failure(stage="untouched", summary=summary, details=call_lines(trial.facts))


@replay_clause(
    "no-tokens",
    "A rank without tokens replays with the others.",
    rules=("RPL-16",),
    bugs=("M53",),
    events=("replayed-no-tokens",),
    without_tokens=True,
    offers={"num_tokens": (0,)},
    most=5,
)
def no_tokens(trial: ReplayTrial) -> Failure | None:
    """Without tokens the answer has no rows."""
    return raised(trial) or held(trial)
