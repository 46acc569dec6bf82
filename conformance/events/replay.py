"""Events of replays: what a record holds, and where it differs from what a router would choose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import lcm
from typing import Any

import numpy as np

from moe_routing.conformance.calls.replay import ReplayCase
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.registry import ROWS, event
from moe_routing.conformance.generators.construct import table_cases
from moe_routing.conformance.generators.replay import NOBODY, fitting, spaced
from moe_routing.conformance.judge.replay import ReplayFacts
from moe_routing.implementations import Capabilities
from moe_routing.implementations.replays import repeats
from moe_routing.reference import Recorded
from moe_routing.reference.formats import BFLOAT16, Bools, Ids
from moe_routing.reference.replay import NO_ROW
from moe_routing.reference.routes import ABSENT
from moe_routing.reference.scores import sigmoid
from moe_routing.reference.weight_gradients import norm_of

Occurs = Callable[[ReplayFacts], bool]
Makes = Callable[[Case], Recorded]


TINY = 1e-12
"""A norm by which an eps of 1e-20, or a floor of 1e-12, shows."""


def _replayed(
    slug: str, statement: str, occurs: Occurs, record: Makes, *, free: bool = False, **parts: Any
) -> None:
    """Register an event that the cases of a record show, among plain logits."""
    given = {"logits": ROWS, "top_ks": (2, 1), **parts}
    logits, top_ks = given.pop("logits"), given.pop("top_ks")

    def shown(facts: Any) -> bool:
        return isinstance(facts, ReplayFacts) and facts.replayed != free and bool(occurs(facts))

    @event(f"replayed-{slug}", statement, shown)
    def _(capabilities: Capabilities) -> Iterator[ReplayCase]:
        for top_k in top_ks:
            for case in table_cases(capabilities, logits, top_k=top_k, **given):
                yield from _fitting(capabilities, case, record)


def _absent_and_first(ids: Ids) -> Ids:
    """Return routes whose first is absent, and whose second is expert 0, which no other is."""
    made = np.where(ids == 0, ABSENT, ids)
    made[:, 0], made[:, 1] = ABSENT, 0
    return made


def _fitting(capabilities: Capabilities, case: Case, record: Makes) -> Iterator[ReplayCase]:
    """Yield the case with its record, if there is one that fits it and is claimed."""
    try:
        made = ReplayCase.of(case, record(case))
    except ValueError:  # fewer experts or tokens than the record wants
        return
    refused = capabilities.replays.refusals(made.config, made.inputs.recorded)
    if not refused and not capabilities.layout_refusals(made.inputs):
        yield made


def others(case: Case, tokens: int | None = None, layer: int = 0) -> Ids:
    """Return experts ``[tokens, K]`` in descending order, other ones for each token and layer."""
    config = case.config
    t = np.arange(case.num_tokens if tokens is None else tokens)[:, None]
    return (config.num_experts - 1 + t + layer - np.arange(config.top_k)) % config.num_experts


def plain(case: Case, change: Callable[[Ids], Ids] = lambda ids: ids, **fields: Any) -> Recorded:
    """Return the record of one layer."""
    return Recorded(expert_ids=change(others(case))[:, None].copy(), **fields)


def _lose(ids: Ids, lost: Any) -> Ids:
    return np.where(np.broadcast_to(lost, ids.shape), ABSENT, ids)


def _unlike(facts: ReplayFacts) -> Bools:
    """Return the judged tokens whose experts are not those that the router would choose."""
    apart = (np.sort(facts.ids, axis=1) != np.sort(facts.chosen, axis=1)).any(axis=1)
    return np.asarray(apart & facts.bounds.judged & facts.present.any(axis=1))


def _at_stake(facts: ReplayFacts) -> bool:
    return bool(_unlike(facts).any())


def _several(facts: ReplayFacts) -> Bools:
    """Return the judged tokens with several present routes."""
    return np.asarray((facts.present.sum(axis=1) > 1) & facts.bounds.judged)


def _some_absent(facts: ReplayFacts) -> Bools:
    present = facts.present
    return np.asarray(present.any(axis=1) & ~present.all(axis=1))


def _beside_first(facts: ReplayFacts) -> bool:
    first = (facts.ids == 0).any(axis=1)
    return bool((_some_absent(facts) & first & facts.bounds.judged).any())


def _with_weights(case: Case, **fields: Any) -> Recorded:
    record = plain(case, **fields)
    numbers = 1 + np.arange(record.expert_ids.size) * 5 % 64
    weights = fitting(case, numbers / 96.0).reshape(record.expert_ids.shape)
    return Recorded(expert_ids=record.expert_ids, weights=weights)


def _layered(case: Case, layers: int, layer: int | None, **fields: Any) -> Recorded:
    ids = np.stack([others(case, layer=number) for number in range(layers)], axis=1)
    return Recorded(expert_ids=ids, layer=layer, **fields)


def _rows(case: Case, rows: Any, number: int | None = None) -> Recorded:
    """Return a record whose tokens have these rows; what no token has is nobody's."""
    placed = np.asarray(rows, np.int64)
    count = len(placed) if number is None else number
    ids = others(case, count)[:, None].copy()
    ids[np.setdiff1d(np.arange(count), placed)] = NOBODY
    return Recorded(expert_ids=ids, rows=placed)


def _in_other_rows(facts: ReplayFacts) -> bool:
    """Return whether some token has the row of another, which holds other experts."""
    rows = facts.recorded.rows
    if rows is None or facts.recorded.layer is None:
        return False
    held = facts.recorded.expert_ids[:, facts.recorded.layer]
    own = np.arange(len(rows))
    moved = (rows >= 0) & (rows != own) & (own < len(held))
    return bool((held[rows[moved]] != held[own[moved]]).any())


def _is_order(facts: ReplayFacts) -> bool:
    rows = facts.recorded.rows
    if rows is None or len(rows) != len(facts.recorded.expert_ids):
        return False
    return bool((rows >= 0).all())


def _swaps(facts: ReplayFacts) -> bool:
    rows = facts.recorded.rows
    return rows is not None and np.array_equal(np.argsort(rows), rows)


def _layers_differ(facts: ReplayFacts) -> bool:
    ids, layer = facts.recorded.expert_ids, facts.recorded.layer
    return ids.shape[1] > 1 and bool((ids != ids[:, [layer or 0]]).any())


_replayed(
    "elsewhere",
    "forced experts that are not those the router would choose",
    _at_stake,
    plain,
)
_replayed(
    "unsorted",
    "forced experts in slots that are in no ascending order",
    lambda f: f.ids.size > 0 and bool((np.diff(np.where(f.present, f.ids, -1), axis=1) < 0).any()),
    plain,
    top_ks=(2, 3),
)
_replayed(
    "normed",
    "a norm over several forced experts, other ones than would be chosen",
    lambda f: f.config.renormalize is not None and bool((_several(f) & _unlike(f)).any()),
    plain,
    wants={"renormalize": lambda rule: rule is not None},
)
_replayed(
    "not-normed",
    "forced experts that are not chosen, without a norm",
    lambda f: f.config.renormalize is None and _at_stake(f),
    plain,
    wants={"renormalize": None},
)
_replayed(
    "tiny-norm",
    "forced experts whose scores sum to less than 1e-12, under a norm",
    lambda f: _norm_is_tiny(f),
    plain,
    logits=[[0.0, -4.0, -44.0, -40.0], [-4.0, -3.0, -43.0, -40.0]],
    wants={"renormalize": lambda rule: rule is not None},
)
_replayed(
    "scaled",
    "a routed scaling factor that is not 1 or 0",
    lambda f: f.config.scale not in (0.0, 1.0) and _at_stake(f),
    plain,
    wants={"scale": lambda scale: scale not in (0.0, 1.0)},
)
_replayed(
    "expert-scale",
    "forced experts with scales of their own that differ",
    lambda f: (
        f.inputs.per_expert_scale is not None
        and bool(np.ptp(f.inputs.per_expert_scale))
        and _at_stake(f)
    ),
    plain,
    per_expert_scale=[0.5, 2.0, -1.0, 1.5],
)
_replayed(
    "biased",
    "a selection bias that is not 0 at a forced expert",
    lambda f: (
        f.inputs.selection_bias is not None
        and bool((f.inputs.selection_bias[f.ids[f.present]] != 0.0).any())
        and bool(f.bounds.judged.any())
    ),
    plain,
    selection_bias=[0.25, -0.5, 1.0, 0.75],
)
_replayed(
    "masked",
    "weights from masked scores, and a forced expert of a group that is not kept",
    lambda f: _masked(f),
    plain,
    groups=(2, 1),
    wants={"score and weights": lambda pair: pair[1] == "masked_scores"},
)
_replayed(
    "grouped",
    "a forced expert of a group that would not be kept",
    lambda f: f.config.groups is not None and _lost(f),
    plain,
    groups=(2, 1),
)
_replayed(
    "repeated",
    "an expert in two slots of a token",
    lambda f: repeats(f.ids) and bool(f.bounds.judged.any()),
    lambda case: plain(case, lambda ids: np.repeat(ids[:, :1], ids.shape[1], axis=1)),
    top_ks=(2,),
)
_replayed(
    "some-absent",
    "absent routes of a token that has others",
    lambda f: bool((_some_absent(f) & f.bounds.judged).any()),
    lambda case: plain(case, lambda ids: _lose(ids, np.arange(ids.shape[1]) == 0)),
    top_ks=(2,),
)
_replayed(
    "absent-beside-first",
    "an absent route of a token that has expert 0 in another slot, whose weight is not 0",
    lambda f: _beside_first(f),
    lambda case: plain(case, _absent_and_first),
    top_ks=(2, 3, 8),
)
_replayed(
    "absent-normed",
    "an absent route of a token whose others are normed",
    lambda f: f.config.renormalize is not None and bool((_some_absent(f) & f.bounds.judged).any()),
    lambda case: plain(case, lambda ids: _lose(ids, np.arange(ids.shape[1]) == 1)),
    top_ks=(2, 3),
    wants={"renormalize": lambda rule: rule is not None},
)
_replayed(
    "token-absent",
    "a token all of whose routes are absent, among others",
    lambda f: bool((~f.present.any(axis=1)).any()) and bool(f.present.any()),
    lambda case: plain(case, lambda ids: _lose(ids, (np.arange(len(ids)) == 1)[:, None])),
)
_replayed(
    "all-absent",
    "every route absent",
    lambda f: f.ids.size > 0 and not f.present.any(),
    lambda case: plain(case, lambda ids: _lose(ids, True)),
)
_replayed(
    "weights",
    "recorded weights that are not the router's own",
    lambda f: _weights_differ(f),
    _with_weights,
)
_replayed(
    "fine-weights",
    "recorded weights of more bits than bfloat16 holds",
    lambda f: (
        f.weights is not None and bool((BFLOAT16.round(f.weights) != f.weights)[f.present].any())
    ),
    _with_weights,
    wants={"dtypes": lambda dtypes: dtypes[2] == "float32"},
)
_replayed(
    "absent-weights",
    "a recorded weight that is not 0 in a slot whose route is absent",
    lambda f: _weight_of_nobody(f),
    lambda case: _with_weights(case, change=lambda ids: _lose(ids, np.arange(ids.shape[1]) == 0)),
    top_ks=(2, 1),
)
_replayed(
    "reordered",
    "tokens in another order than the record's",
    lambda f: _is_order(f) and _in_other_rows(f),
    lambda case: _rows(case, np.roll(np.arange(case.num_tokens), 1)),
)
_replayed(
    "order-of-three",
    "tokens in an order that is not its own inverse",
    lambda f: _is_order(f) and not _swaps(f) and _in_other_rows(f),
    lambda case: _rows(case, np.roll(np.arange(case.num_tokens), 1)),
)
_replayed(
    "packed",
    "tokens that have some rows of a longer record",
    lambda f: (
        f.recorded.rows is not None
        and len(f.recorded.expert_ids) > len(f.recorded.rows)
        and _in_other_rows(f)
    ),
    lambda case: _rows(case, np.arange(case.num_tokens) + 1, case.num_tokens + 2),
)
_replayed(
    "padded",
    "a token that has no row, before one that has, and rows that follow one another",
    lambda f: _padded_before(f),
    lambda case: _rows(case, np.arange(case.num_tokens) - 1, max(case.num_tokens - 1, 1)),
)
_replayed(
    "layers",
    "the first of several layers, which differ",
    lambda f: f.recorded.layer == 0 and _layers_differ(f),
    lambda case: _layered(case, 3, 0),
)
_replayed(
    "later-layer",
    "a layer that is not the first and not the last, and differs from them",
    lambda f: 0 < (f.recorded.layer or 0) < f.recorded.num_layers - 1 and _layers_differ(f),
    lambda case: _layered(case, 3, 1),
)
_replayed(
    "last-layer",
    "the last of several layers, which differ",
    lambda f: f.recorded.layer == f.recorded.num_layers - 1 > 0 and _layers_differ(f),
    lambda case: _layered(case, 2, 1),
)
_replayed(
    "unrecorded",
    "a layer of which there is no record, and others whose routes it would not choose",
    lambda f: _would_choose_others(f),
    lambda case: _layered(case, 2, None),
    free=True,
)
_replayed(
    "strided",
    "a record whose tokens do not lie next to one another, several of them",
    lambda f: not f.recorded.expert_ids.flags.c_contiguous and f.recorded.num_tokens > 1,
    lambda case: Recorded(expert_ids=spaced(others(case)[:, None])),
)
_replayed(
    "no-tokens",
    "no tokens",
    lambda f: f.inputs.num_tokens == 0,
    plain,
    logits=np.zeros((0, 4)),
)
_replayed(
    "tokens-above-256",
    "more than 256 tokens, of which the last has other experts than would be chosen",
    lambda f: f.inputs.num_tokens > 256 and bool(_unlike(f)[-1]),
    plain,
    logits=np.resize(np.array(ROWS), (257, 4)),
)


_PER_EXPERT = ("gate_bias", "selection_bias", "per_expert_scale")


def widened(case: Case, experts: int) -> Case:
    """Return a case of so many experts: a gate of one column, whose logits are exact."""
    inputs, column = case.inputs, (np.arange(experts) % 61 - 30) / 16.0
    hidden = np.where(np.arange(case.num_tokens) % 2, -0.5, 1.0)[:, None].astype(np.float32)
    gate = column.astype(np.float32)[:, None]
    arrays: dict[str, Any] = {"hidden": hidden, "gate_weight": gate}
    if inputs.logits is not None:
        arrays["logits"] = hidden @ gate.T
    for name in _PER_EXPERT:
        if (each := getattr(inputs, name)) is not None:
            arrays[name] = np.resize(each, experts)
    if inputs.gate_delta is not None:
        arrays["gate_delta"] = np.zeros_like(gate)
    if inputs.hidden_scale is not None:
        arrays["hidden_scale"] = np.ones(1, np.float32)
    config = replace(case.config, num_experts=experts)
    return replace(case, config=config, inputs=replace(inputs, **arrays))


def _of_wide_ids(above: int) -> None:
    @event(
        f"replayed-id-above-{above}",
        f"a forced expert whose id is above {above}",
        lambda facts: (
            isinstance(facts, ReplayFacts)
            and bool((facts.ids > above).any())
            and bool(facts.bounds.judged.any())
        ),
    )
    def _(capabilities: Capabilities) -> Iterator[ReplayCase]:
        multiple = capabilities.limits.experts_multiple_of
        for case in table_cases(capabilities, np.resize(ROWS, (2, 8)), top_k=2):
            groups = case.config.groups
            step = multiple if groups is None else lcm(multiple, groups.count)
            wide = widened(case, -(-(above + 2) // step) * step)
            if capabilities.admits(wide.config, wide.inputs):
                yield from _fitting(capabilities, wide, plain)


for _above in (255, 32_767):
    _of_wide_ids(_above)


def _lost(facts: ReplayFacts) -> bool:
    done = facts.routing.reference
    at = np.take_along_axis(done.kept, np.maximum(facts.ids, 0), axis=1)
    return bool((~at & facts.present & facts.bounds.judged[:, None]).any())


def _norm_is_tiny(facts: ReplayFacts) -> bool:
    rule = facts.config.renormalize
    if rule is None or "softmax_of" in facts.config.weights_from:
        return False
    values = facts.bounds.reference.scores
    if facts.config.weights_from == "sigmoid_of_selected":
        values = sigmoid(facts.bounds.reference.operated)
    held = np.take_along_axis(values, np.maximum(facts.ids, 0), axis=1)
    norms = norm_of(rule, np.where(facts.present, held, 0.0))
    told = facts.bounds.judged & facts.present.any(axis=1)
    return bool(((norms > 0.0) & (norms < TINY) & told).any())


def _masked(facts: ReplayFacts) -> bool:
    return facts.config.weights_from == "masked_scores" and _lost(facts)


def _weights_differ(facts: ReplayFacts) -> bool:
    if facts.weights is None:
        return False
    inside = facts.permitted.weights.contains(facts.weights)
    return bool((~inside & facts.present & facts.bounds.judged[:, None]).any())


def _weight_of_nobody(facts: ReplayFacts) -> bool:
    record, layer = facts.recorded, facts.recorded.layer
    if record.weights is None or layer is None:
        return False
    absent = record.expert_ids[:, layer] == ABSENT
    return bool((record.weights[:, layer][absent] != 0.0).any())


def _padded_before(facts: ReplayFacts) -> bool:
    rows = facts.recorded.rows
    if rows is None or not (rows == NO_ROW).any() or not (rows >= 0).any():
        return False
    return bool(np.argmax(rows == NO_ROW) < np.flatnonzero(rows >= 0)[-1])


def _would_choose_others(facts: ReplayFacts) -> bool:
    record, chosen = facts.recorded, facts.chosen
    if not chosen.size or len(record.expert_ids) != len(chosen):
        return False
    mine = np.sort(chosen, axis=1)[:, None] != np.sort(record.expert_ids, axis=2)
    sure = facts.routing.only_reference
    return bool((mine.any(axis=2).all(axis=1) & sure).any())
