"""Clauses of the chapter on replay (docs/spec/replay.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np

from moe_routing.conformance.calls.replay import ReplayCase
from moe_routing.conformance.clauses.registry import Check, clause
from moe_routing.conformance.clauses.relations import raised
from moe_routing.conformance.explain.failure import Failure, at, first_failure
from moe_routing.conformance.explain.numbers import show
from moe_routing.conformance.explain.replay import call_lines, replay_failure
from moe_routing.conformance.generators.choices import Focus
from moe_routing.conformance.generators.replay import choose_replay_case, replayed
from moe_routing.conformance.generators.seeds import Seeded
from moe_routing.conformance.trial.base import Unchecked
from moe_routing.conformance.trial.replay import ReplayTrial
from moe_routing.implementations import Capabilities
from moe_routing.reference import Recorded

FEW = 25
"""The cases that are drawn for a clause about one part: `forced` draws the whole pipeline."""

PLAIN = {"unrecorded": (False,), "absence": ("none",), "repeated experts": (False,)}
"""What is drawn of a record for the clauses that are about something else."""

ANY_ABSENCE = ("none", "some", "tokens")


def _replay(
    name: str,
    why: str,
    *,
    records: dict[str, Any] | None = None,
    offers: dict[str, Any] | None = None,
    needs: Callable[[Capabilities], str | None] = lambda capabilities: None,
    **parts: Any,
) -> Callable[[Check], Check]:
    """Register a clause about calls of ``replay``; ``records`` and ``offers`` say what is drawn."""
    focus, chosen = Focus(offers=_offers(offers)), records or {}

    def strategy(capabilities: Capabilities) -> Seeded[ReplayCase]:
        offered = _offers({**PLAIN, **chosen})
        return Seeded(lambda choose: choose_replay_case(choose, capabilities, focus, offered))

    register: Callable[[Check], Check] = clause(
        f"replay.{name}",
        "MUST",
        why=why,
        method="replay",
        strategy=strategy,
        needs=lambda capabilities: _nothing_left(capabilities) or needs(capabilities),
        **{"most": FEW, **parts},
    )
    return register


def _nothing_left(capabilities: Capabilities) -> str | None:
    if replayed(capabilities).claims:
        return None
    return "all that is claimed has weights_from='masked_scores', and replays.masked does not"


def _offers(listed: dict[str, Any] | None) -> dict[str, Any]:
    return {name: _among(values) for name, values in (listed or {}).items()}


def _among(values: Any) -> Callable[[Any], list[Any]]:
    return lambda offered: [each for each in offered if each in values]


def _lists(axis: str) -> Callable[[Capabilities], str | None]:
    """Return why capabilities claim no record that has this, or None if they do."""

    def needs(capabilities: Capabilities) -> str | None:
        listed = getattr(capabilities.replays, axis)
        return None if True in listed else f"replays.{axis}={listed} does not list True"

    return needs


def _held(trial: ReplayTrial, *, made: ReplayCase | None = None) -> Failure | None:
    """Return how a replay is wrong, or a layer without a record that it routes."""
    if trial.facts.replayed:
        found = replay_failure(trial.verdict)
    else:
        found = first_failure(trial.as_routing, "selection", "weights")
    return replace(found, made=made) if found is not None and made is not None else found


def _another(trial: ReplayTrial, record: Recorded) -> ReplayTrial:
    """Return the trial of the same call with another record. Errors: ``Excused``, ``Unchecked``."""
    case = ReplayCase.of(trial.case, record)
    if refused := trial.capabilities.replays.refusals(case.config, record):
        raise Unchecked(f"what the clause makes of the case is not claimed: {', '.join(refused)}")
    return cast(ReplayTrial, trial.of(case))


@_replay(
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
    return _held(trial)


@_replay(
    "masked-scores",
    "A mask of the trainer's own choice weighs recorded experts with 0: they ran, and get nothing.",
    rules=("RPL-3",),
    bugs=("M76",),
    events=("replayed-masked",),
    narrow={"weights_from": ("masked_scores",), "groups": (True,)},
    needs=_lists("masked"),
)
def masked_scores(trial: ReplayTrial) -> Failure | None:
    """Nothing is chosen again: a recorded expert of a group that would be masked has its score."""
    return _held(trial)


@_replay(
    "repeated",
    "Records hold an expert twice, from padding if nowhere else; a scatter adds both weights to "
    "each, or loses one.",
    rules=("RPL-4",),
    bugs=("M76",),
    events=("replayed-repeated",),
    records={"repeated experts": (True,)},
    needs=_lists("repeats"),
)
def repeated(trial: ReplayTrial) -> Failure | None:
    """An expert in several slots of a token keeps each of them, with a weight of its own."""
    return _held(trial)


@_replay(
    "absent-rows",
    "A sentinel that is written to expert 0 wipes that expert's weight; one that enters the norm "
    "shrinks all others.",
    rules=("RPL-5", "RPL-6"),
    bugs=("M46", "M47", "M76"),
    events=(
        *("replayed-some-absent", "replayed-absent-beside-first", "replayed-absent-normed"),
        *("replayed-token-absent", "replayed-all-absent"),
    ),
    records={"absence": ("some", "tokens"), "recorded weights": (False,)},
    needs=_lists("absent"),
)
def absent_rows(trial: ReplayTrial) -> Failure | None:
    """An absent route stays -1, weighs 0, and changes no other expert's weight."""
    return _held(trial)


@_replay(
    "recorded-weights",
    "A record with weights is taken for its weights: recomputed ones differ by what the two "
    "routers' rounding does.",
    rules=("RPL-7", "RPL-5"),
    bugs=("M76",),
    events=("replayed-weights", "replayed-fine-weights", "replayed-absent-weights"),
    records={"recorded weights": (True,), "absence": ANY_ABSENCE},
    needs=_lists("weights"),
)
def recorded_weights(trial: ReplayTrial) -> Failure | None:
    """Recorded weights come back bit for bit, and 0 where the route is absent."""
    return _held(trial)


@_replay(
    "own-record",
    "A router that does not reproduce itself from its own record hides every real difference "
    "behind one of its own.",
    rules=("RPL-8",),
    bugs=("M76",),
    events=("replayed-elsewhere",),
    records={"recorded weights": (False,)},
    needs=_lists("unrecorded"),
)
def own_record(trial: ReplayTrial) -> Failure | None:
    """The backend's own choice, recorded and replayed, is the same answer, bit for bit."""
    tokens, top_k = trial.case.num_tokens, trial.case.config.top_k
    nothing = Recorded(expert_ids=np.zeros((tokens, 1, top_k), np.int64), layer=None)
    free = _another(trial, nothing)
    ids = free.answer.expert_ids
    try:
        again = _another(trial, Recorded(expert_ids=ids[:, None].copy()))
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


@_replay(
    "rows",
    "Trainers sort, pack and pad: a token that gets its neighbour's experts is wrong from there to "
    "the end of the batch.",
    rules=("RPL-9",),
    bugs=("M76",),
    events=("replayed-reordered", "replayed-order-of-three", "replayed-packed"),
    records={"rows": ("reordered", "packed")},
    needs=_lists("rows"),
)
def rows(trial: ReplayTrial) -> Failure | None:
    """In a reordered, packed or padded batch every token has its own row of the record."""
    return _held(trial)


@_replay(
    "padding",
    "Padding of a record is not padding of a batch: rows of K equal experts, or the last row by a "
    "negative index, send tokens of nothing to real experts.",
    rules=("RPL-10",),
    bugs=("M47", "M55", "M76"),
    events=("replayed-padded",),
    records={"rows": ("padded",)},
    needs=lambda capabilities: _lists("rows")(capabilities) or _lists("absent")(capabilities),
)
def padding(trial: ReplayTrial) -> Failure | None:
    """A token without a row has absent routes alone, and takes none from another token."""
    return _held(trial)


@_replay(
    "layers",
    "Dense layers, pipeline stages and MTP layers shift the count: each layer then replays its "
    "neighbour's routes, and no shape says so.",
    rules=("RPL-11",),
    bugs=("M76",),
    events=("replayed-layers", "replayed-later-layer", "replayed-last-layer"),
    records={"layers": (2, 3)},
    needs=_lists("layers"),
)
def layers(trial: ReplayTrial) -> Failure | None:
    """Each layer replays its own record."""
    return _held(trial)


@_replay(
    "unrecorded",
    "An MTP layer is no layer of the engine's record: with the decoder's routes it runs experts "
    "that nobody chose for it.",
    rules=("RPL-12",),
    bugs=("M76",),
    events=("replayed-unrecorded",),
    records={"unrecorded": (True,)},
    needs=_lists("unrecorded"),
)
def unrecorded(trial: ReplayTrial) -> Failure | None:
    """A layer without a record routes by itself."""
    return _held(trial)


@_replay(
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
    return _held(trial)


@_replay(
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
    _ = _another(trial, Recorded(expert_ids=others[:, None], weights=weights)).native
    return _held(trial)


@_replay(
    "strided",
    "A buffer of K + S slots, S of them for shared experts, read as one of K gives every token "
    "after the first the routes of another.",
    rules=("RPL-14",),
    bugs=("M40", "M76"),
    events=("replayed-strided",),
    records={"strided": (True,)},
    needs=_lists("strided"),
)
def strided(trial: ReplayTrial) -> Failure | None:
    """A record whose tokens do not lie next to one another in memory is read by its strides."""
    return _held(trial)


@_replay(
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


@_replay(
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
    return raised(trial) or _held(trial)
