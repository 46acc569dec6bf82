"""Records to replay: any experts in any slots, absent ones, rows, layers, weights, strides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.memory import strided, with_changes
from moe_routing.conformance.calls.replay import ReplayCase
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.generators.axes import Choose
from moe_routing.conformance.generators.choices import Focus, Offers, choose_case, narrowed_by
from moe_routing.conformance.generators.construct import take_tokens
from moe_routing.conformance.generators.reducer import Reduction, attempt, subsets
from moe_routing.conformance.generators.reductions import with_experts
from moe_routing.conformance.generators.sizes import Size
from moe_routing.implementations import Capabilities
from moe_routing.reference import Recorded
from moe_routing.reference.config import WEIGHTS_FROM
from moe_routing.reference.formats import INPUT_FORMATS, Ids
from moe_routing.reference.replay import NO_ROW
from moe_routing.reference.routes import ABSENT

NOBODY = 2**40
"""The expert of slots that no token reads: there is none of it."""

GAP = 3
"""The numbers between the tokens of a strided record: those of fused shared experts."""

_ABSENCE = ("none", "none", "some", "tokens", "all")
_ORDERS = ("as-is", "as-is", "reordered", "padded", "packed")

_MASKED = "masked_scores"

Array = npt.NDArray[Any]


def choose_replay_case(
    choose: Choose, capabilities: Capabilities, focus: Focus, records: Offers | None = None
) -> ReplayCase:
    """Return a routing case with a record that is claimed, made by choices.

    ``records`` filters, by the names of the choices here, what is offered of a record.
    """
    claimed = capabilities.replays
    case = choose_case(choose, replayed(capabilities), focus)
    choose = narrowed_by(choose, records or {})
    absence = choose("absence", _ABSENCE if True in claimed.absent else ("none",))
    chosen = {
        "repeats": choose("repeated experts", claimed.repeats),
        "layers": choose("layers", (1, 2, 3) if True in claimed.layers else (1,)),
        "weights": choose("recorded weights", claimed.weights),
        "rows": choose("rows", _rows_offered(capabilities)),
        "gaps": choose("strided", claimed.strided if _takes_gaps(capabilities) else (False,)),
        "unrecorded": choose("unrecorded", (False, False, *claimed.unrecorded)),
    }
    rng = np.random.default_rng(choose("seed", range(2**16)))
    return ReplayCase.of(case, drawn_record(rng, case, absence=absence, **chosen))


def replayed(capabilities: Capabilities) -> Capabilities:
    """Return what is claimed of routers that are replayed; may claim nothing."""
    if True in capabilities.replays.masked:
        return capabilities
    return capabilities.narrowed(weights_from=tuple(w for w in WEIGHTS_FROM if w != _MASKED))


def _takes_gaps(capabilities: Capabilities) -> bool:
    return "strided" in capabilities.layouts


def _rows_offered(capabilities: Capabilities) -> list[str]:
    claimed = capabilities.replays
    lacks = {"padded"} if True not in claimed.absent else set()
    return [each for each in _ORDERS if each not in lacks] if True in claimed.rows else ["as-is"]


def drawn_record(
    rng: np.random.Generator,
    case: Case,
    *,
    absence: str,
    repeats: bool,
    layers: int,
    weights: bool,
    rows: str,
    gaps: bool,
    unrecorded: bool,
) -> Recorded:
    """Draw the record of a routing case."""
    tokens, experts, top_k = case.num_tokens, case.config.num_experts, case.config.top_k
    placed = None if unrecorded else placed_rows(rng, rows, tokens)
    number = tokens if placed is None else tokens + (3 if rows == "packed" else 0)
    ids = np.stack([_ids(rng, (number, top_k), experts, repeats) for _ in range(layers)], axis=1)
    ids = np.where(_lost(rng, ids.shape, absence), ABSENT, ids)
    layer = None if unrecorded else int(rng.integers(layers))
    if placed is not None and layer is not None:
        ids[np.setdiff1d(np.arange(number), placed)] = NOBODY
    held = _weights(rng, ids.shape, case) if weights else None
    return Recorded(
        expert_ids=spaced(ids) if gaps else ids,
        weights=None if held is None else spaced(held) if gaps else held,
        rows=placed,
        layer=layer,
    )


def _ids(rng: np.random.Generator, shape: tuple[int, int], experts: int, repeats: bool) -> Ids:
    """Draw the experts of a layer: distinct in each token, in any order, or any at all."""
    if repeats:
        return rng.integers(0, experts, shape)
    keys = rng.random((shape[0], experts))
    return np.argsort(keys, axis=1)[:, : shape[1]]


def _lost(rng: np.random.Generator, shape: tuple[int, ...], absence: str) -> Array:
    if absence in ("none", "all"):
        return np.full(shape, absence == "all")
    return rng.random(shape if absence == "some" else (shape[0], 1, 1)) < 0.4


def _weights(
    rng: np.random.Generator, shape: tuple[int, ...], case: Case
) -> npt.NDArray[np.float32]:
    """Draw weights that a router of the case can hold, of as many bits as that, none of them 0."""
    held = (1.0 + rng.random(shape)) / 2.0 ** rng.integers(0, 4, shape)
    return fitting(case, held)


def fitting(case: Case, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Round weights to what those of the case may be stored in."""
    narrow = case.config.weights_dtype == "input"
    form = INPUT_FORMATS[case.inputs.dtype if narrow else "float32"]
    return np.asarray(form.round(weights), np.float32)


def placed_rows(rng: np.random.Generator, rows: str, tokens: int) -> Ids | None:
    """Draw the row of each token: in another order, with padding, or some of a longer record."""
    if rows == "reordered":
        return rng.permutation(tokens)
    if rows == "padded":
        return np.where(rng.random(tokens) < 0.4, NO_ROW, np.arange(tokens))
    if rows == "packed":
        return np.sort(rng.permutation(tokens + 3)[:tokens])
    return None


def spaced(array: Array) -> Array:
    """Lay a record out with a gap after each token, as a buffer of more slots has it."""
    if not array.size:
        return array
    layers, slots = array.shape[1:]
    return strided(array, [layers * slots + GAP, slots, 1])


# Smaller cases.


def _with(case: ReplayCase, **fields: Any) -> ReplayCase:
    """Return the case with a record of other fields. Errors: ``ValueError``."""
    named = {"expert_ids": "recorded_ids", "weights": "recorded_weights"}
    return replace(
        case, inputs=replace(case.inputs, **{named.get(n, n): v for n, v in fields.items()})
    )


def plainer_records(case: ReplayCase) -> Iterator[ReplayCase]:
    """Yield the case with one layer, rows in order, no weights, no stride, nothing absent."""
    record = case.inputs.recorded
    if record.layer is None:
        if record.num_layers > 1:
            yield _with(case, expert_ids=record.expert_ids[:, :1].copy(), weights=None)
        return
    if record.num_layers > 1 or record.rows is not None:
        held = record.forced_weights
        weights = None if held is None else held[:, None]
        yield _with(
            case, expert_ids=record.ids[:, None].copy(), weights=weights, rows=None, layer=0
        )
        for layers in range(record.layer + 1, record.num_layers):
            fewer = record.expert_ids[:, :layers].copy()
            yield from attempt(_with, case, expert_ids=fewer, weights=None)
    if record.weights is not None:
        yield _with(case, weights=None)
    if not record.expert_ids.flags.c_contiguous:
        weights = None if record.weights is None else np.ascontiguousarray(record.weights)
        yield _with(case, expert_ids=np.ascontiguousarray(record.expert_ids), weights=weights)


def _slots(case: ReplayCase) -> Iterator[ReplayCase]:
    for kept in subsets(case.config.top_k):
        yield from attempt(keep_slots, case, kept)


def keep_slots(case: ReplayCase, kept: Ids) -> ReplayCase:
    """Return the case with these slots of every token alone. Errors: ``ValueError``."""
    record, table = case.inputs.recorded, case.inputs.expert_table
    changes: dict[str, Any] = {"recorded_ids": record.expert_ids[:, :, kept]}
    if record.weights is not None:
        changes["recorded_weights"] = record.weights[:, :, kept]
    if table is not None:
        changes["expert_table"] = table[:, kept]
    inputs = with_changes(case.inputs, **changes)
    config = replace(case.config, top_k=len(kept))
    return ReplayCase(config=config, inputs=inputs, recipe=case.recipe)


def _experts(case: ReplayCase) -> Iterator[ReplayCase]:
    """Yield the case with fewer experts: those of the record keep their place or get another."""
    for kept in subsets(case.config.num_experts):
        if len(kept) >= case.config.top_k and case.config.groups is None:
            yield from attempt(_with_experts, case, kept)


def _with_experts(case: ReplayCase, kept: Ids) -> ReplayCase:
    return cast(ReplayCase, with_experts(case, kept))


def _in_order(case: ReplayCase) -> Iterator[ReplayCase]:
    """Yield the case whose unread slots hold expert 0, as far as it was no expert."""
    ids = case.inputs.recorded_ids
    if (ids == NOBODY).any():
        yield from attempt(_with, case, expert_ids=np.where(ids == NOBODY, 0, ids))


REPLAY_REDUCTIONS: tuple[Reduction, ...] = (plainer_records, _slots, _experts, _in_order)
"""The reductions of a record; those of routing cases come after them."""

REPLAY_SIZES = (
    Size(name="T", count=lambda case: case.num_tokens, usual=4, keep=take_tokens),
    Size(name="K", count=lambda case: case.config.top_k, usual=4, keep=keep_slots),
)
"""The sizes of a replay."""
