"""A walk through one trace or two: stretch by stretch, layer by layer, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from moe_routing.conformance.traces.agreement import agree
from moe_routing.conformance.traces.block_data import BlockData
from moe_routing.conformance.traces.blocks import (
    STAGES,
    STATES,
    UNDEFINED,
    WRONG,
    Evidence,
    Marks,
    judge_block,
)
from moe_routing.conformance.traces.pieces import Files
from moe_routing.conformance.traces.places import Place
from moe_routing.conformance.traces.stories import story_of, story_of_undefined
from moe_routing.conformance.traces.survey import Surveyed
from moe_routing.conformance.traces.tally import Tally

_NUMBERS = {"logits": 2**16, "expert_ids": 2**16, "hidden": 2**20}
"""The numbers of a block, by part: what is made of them stays in a cache, and takes memory used
before; products with a gate want more tokens."""

UNIT = 2**14
"""The tokens of a unit of work: a stretch of all layers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """What is to be judged: one trace or two, and where misplaced layers were found.

    ``own`` are the places of a trace's misplaced layers among its own logits, by its letter;
    ``pairs`` those of B's layers among A's; ``paired`` says which of A's each of B's should equal.
    """

    traces: tuple[Surveyed, ...]
    own: dict[str, dict[int, Place]] = field(default_factory=dict)
    pairs: dict[int, Place] = field(default_factory=dict)
    paired: dict[int, int] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """The tokens of each trace."""
        return self.traces[0].trace.tokens

    def units(self) -> list[tuple[int, int]]:
        """Return the stretches of tokens that are judged one by one."""
        return [(at, min(at + UNIT, self.tokens)) for at in range(0, self.tokens, UNIT)]


@dataclass
class Found:
    """What was found: of each trace by its letter, and of their agreement."""

    of: dict[str, Tally] = field(default_factory=dict)
    agreement: Tally = field(default_factory=Tally)

    def add(self, other: Found) -> None:
        """Add what was found of a later stretch."""
        for letter, tally in other.of.items():
            self.of.setdefault(letter, Tally()).add(tally)
        self.agreement.add(other.agreement)


def walk(plan: Plan, progress: Callable[[int], None] = lambda done: None) -> Found:
    """Judge all of it in this process. Errors: ``TraceError``, ``OSError``."""
    files, found = Files(), Found()
    try:
        for start, stop in plan.units():
            progress(start)
            found.add(judge_unit(plan, start, stop, files))
    finally:
        files.close()
    return found


def judge_unit(plan: Plan, start: int, stop: int, files: Files) -> Found:
    """Judge the tokens from ``start`` to ``stop``, in all layers."""
    found = Found({each.letter: Tally() for each in plan.traces})
    for a, b in _blocks(plan, start, stop):
        for layers in _rows_of_layers(plan):
            data = {
                of.letter: BlockData(of=of, number=layer, start=a, stop=b, files=files)
                for of, layer in layers
            }
            for letter, each in data.items():
                _judge(plan, found.of[letter], each)
            if len(plan.traces) == 2 and "B" in data:
                _compare(plan, found.agreement, data)
    return found


def _blocks(plan: Plan, start: int, stop: int) -> Iterator[tuple[int, int]]:
    sizes = [
        numbers // field.width
        for each in plan.traces
        for part, numbers in _NUMBERS.items()
        if (field := each.trace.part(part)) is not None
    ]
    size = max(1, min(sizes))
    return ((at, min(at + size, stop)) for at in range(start, stop, size))


def _rows_of_layers(plan: Plan) -> Iterator[list[tuple[Surveyed, int]]]:
    """Yield the layers that are read together: B's with the one of A that it should equal."""
    if len(plan.traces) == 1:
        for layer in plan.traces[0].trace.layers:
            yield [(plan.traces[0], layer.number)]
        return
    one, other = plan.traces
    for left, right in zip(one.trace.layers, other.trace.layers, strict=True):
        yield [(one, left.number), (other, right.number)]


def _judge(plan: Plan, tally: Tally, data: BlockData) -> None:
    """Judge a block of a layer by its own logits, or by those that it was found at."""
    if data.ids is None:
        tally.note(data.number, "no ids", data.stop - data.start)
        return
    place = plan.own.get(data.of.letter, {}).get(data.number)
    if place is None:
        _count(tally, data, data, plan.tokens)
        return
    moved = _moved(data, place, plan.tokens)
    kept = moved[0].stop - moved[0].start if moved else 0
    tally.note(data.number, "no place", data.stop - data.start - kept)
    if moved is not None:
        _count(tally, *moved, plan.tokens)


def _moved(data: BlockData, place: Place, tokens: int) -> tuple[BlockData, BlockData] | None:
    """Return a block cut to where its place has tokens, and what is there; None for nothing."""
    start = max(data.start, place.shift)
    stop = min(data.stop, tokens + place.shift)
    if start >= stop:
        return None
    cut = BlockData(of=data.of, number=data.number, start=start, stop=stop, files=data.files)
    there = BlockData(
        of=data.of,
        number=place.layer,
        start=start - place.shift,
        stop=stop - place.shift,
        files=data.files,
    )
    return cut, there


def _count(tally: Tally, data: BlockData, logits: BlockData, tokens: int) -> None:
    """Count the tokens of ``data`` by what is found of them, from the ``logits`` of a block."""
    assert data.ids is not None, "there are routes to judge"
    ids, weights, evidence = data.ids, data.weights, logits.evidence
    router = logits.router
    marks = data.marks if data is logits else judge_block(router, ids, evidence, weights)
    assert marks is not None, "there are routes"
    _count_marks(tally, data.number, marks)
    wrong = marks.state == WRONG

    def story(row: int) -> tuple[str, ...]:
        return story_of(router, ids, evidence, weights, row, int(marks.stage[row]))

    undefined = marks.state == UNDEFINED
    if undefined.any() and evidence is not None:
        tally.show(
            data.number,
            "undefined",
            undefined,
            start=data.start,
            tokens=tokens,
            missed=None,
            story=lambda row: story_of_undefined(evidence, row),
        )
    if wrong.any():
        for stage in np.unique(marks.stage[wrong]):
            tally.show(
                data.number,
                f"wrong {STAGES[stage]}",
                wrong & (marks.stage == stage),
                start=data.start,
                tokens=tokens,
                missed=marks.missed,
                story=story,
            )


def _count_marks(tally: Tally, layer: int, marks: Marks) -> None:
    counts = np.bincount(marks.state, minlength=len(STATES))
    for state, count in enumerate(counts.tolist()):
        if state not in (WRONG, UNDEFINED):
            tally.note(layer, STATES[state], count)


def _compare(plan: Plan, tally: Tally, data: dict[str, BlockData]) -> None:
    """Count how the routes of a block of B agree with those of A, where these were found."""
    one, other = data["A"], data["B"]
    place = plan.pairs.get(other.number)
    if place is None:
        agree(tally, one, other, plan.tokens)
        return
    moved = _moved(other, place, plan.tokens)
    kept = moved[0].stop - moved[0].start if moved else 0
    tally.note(other.number, "no place", other.stop - other.start - kept)
    if moved is None:
        return
    cut, there = moved
    if own := plan.own.get("B", {}).get(other.number):
        cut.__dict__["evidence"] = _evidence_at(cut, own, plan.tokens)
    ours = BlockData(
        of=one.of, number=place.layer, start=there.start, stop=there.stop, files=one.files
    )
    agree(tally, ours, cut, plan.tokens)


def _evidence_at(data: BlockData, own: Place, tokens: int) -> Evidence | None:
    """Return the logits that a misplaced block of B was routed by, None where they end."""
    moved = _moved(data, own, tokens)
    if moved is None or moved[0].start > data.start or moved[0].stop < data.stop:
        return None
    return moved[1].evidence
