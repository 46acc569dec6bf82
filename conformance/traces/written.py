"""What was judged as text: tables by layer and position, the examples, the verdict."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator, Sequence

from rich.text import Text

from moe_routing.conformance.report.columns import Column, table
from moe_routing.conformance.report.plain import printable
from moe_routing.conformance.traces.agreement import CAUSES
from moe_routing.conformance.traces.judged import EXPLAINED, OTHERS, QUIET, UNPLACED, WRONG, Judged
from moe_routing.conformance.traces.survey import Surveyed
from moe_routing.conformance.traces.tally import BUCKETS, Tally
from moe_routing.reference.checks import counted

_MOST = 16
"""The layers that have a row of their own, at most; the rest share one."""

_QUIET = ("right", "rounding", "alike", "ties", "unjudged")
"""Columns that do not make a layer's row interesting."""


def lines(judged: Judged, width: int) -> Iterator[Text]:
    """Yield what the terminal shows."""
    for of in judged.plan.traces:
        yield from _head(judged, of)
    for of in judged.plan.traces:
        yield Text()
        title = f"layers of {of.letter}" if len(judged.plan.traces) > 1 else "layer"
        moved = judged.plan.own.get(of.letter, {})
        yield from _table(title, judged.found.of[of.letter], (*OTHERS, *WRONG), moved, width)
    if len(judged.plan.traces) > 1:
        yield Text()
        yield from _table(
            "A and B", judged.found.agreement, ("alike", *CAUSES), judged.plan.pairs, width
        )
    yield from _positions(judged)
    for letter, which, example in judged.examples():
        yield Text()
        red = example.cause not in QUIET
        whose = f"{letter} is {example.cause}" if letter else f"A and B differ: {example.cause}"
        where = f"layer {example.layer}, token {example.token}"
        yield Text(f"{which}: {whose}, {where}", style="red" if red else "yellow")
        for line in example.lines:
            yield from (Text(each) for each in _wrapped(printable(line)))
    yield Text()
    for line in closing(judged):
        yield from (
            Text(each) for each in textwrap.wrap(printable(line), 80, subsequent_indent="  ")
        )


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, 78, initial_indent="  ", subsequent_indent="      ") or [""]


def _head(judged: Judged, of: Surveyed) -> Iterator[Text]:
    trace, first = of.trace, next(iter(of.routers.values()))
    layers, tokens = counted(len(trace.layers), "layer"), counted(trace.tokens, "token")
    yield Text(printable(f"{of.letter} {trace.name}"), style="italic")
    yield Text(f"  {layers}, {tokens}, K={first.config.top_k}, of {judged.known.name}")
    recorded = [
        f"{name} {form.name}"
        for name, form in (("logits", first.logits), ("weights", first.weights))
        if form is not None
    ]
    forced = ["experts replayed"] if first.forced else []
    if judged.known.config is not None:
        recorded += judged.known.numerics.declared()
        recorded.append(f"hidden states {' or '.join(first.dtypes)}")
    yield Text(f"  {', '.join([*recorded, *forced])}")
    yield from (Text(printable(f"  {note}"), style="yellow") for note in of.notes)


def _table(
    title: str, tally: Tally, causes: Sequence[str], moved: Collection[int], width: int
) -> Iterator[Text]:
    named = [each for each in (*causes, *UNPLACED) if tally.total([each])]
    loud = [each for each in named if each not in _QUIET]
    layers = sorted(tally.counts)
    own = [each for each in layers if tally.of_layer(each, loud) or each in moved]
    own.sort(key=lambda each: (each not in moved, -tally.of_layer(each, loud)))
    own = sorted(own[:_MOST])
    rest = [each for each in layers if each not in own]
    rows: list[tuple[str, list[int]]] = [
        (f"{each}", [tally.of_layer(each, [name]) for name in named]) for each in own
    ]
    if rest and own:
        rows.append((f"{len(rest)} others", [_sum(tally, rest, name) for name in named]))
    rows.append(("total", [tally.total([name]) for name in named]))
    first = Column(head=title.ljust(11), cells=[Text(head) for head, _ in rows])
    figures = [
        Column(
            head=name.removeprefix("wrong ") + "!" * name.startswith("wrong "),
            cells=[Text(f"{counts[place] or ''}") for _, counts in rows],
            right=True,
        )
        for place, name in enumerate(named)
    ]
    yield from table([first, *figures], None, width)


def _sum(tally: Tally, layers: Sequence[int], name: str) -> int:
    return sum(tally.of_layer(each, [name]) for each in layers)


def _positions(judged: Judged) -> Iterator[Text]:
    """Yield where along the tokens what is red lies."""
    tallies = [(f"wrong in {letter}", tally, WRONG) for letter, tally in judged.found.of.items()]
    rest = tuple(each for each in CAUSES if each not in EXPLAINED)
    tallies.append(("not explained", judged.found.agreement, rest))
    for title, tally, causes in tallies:
        counts = [sum(tally.positions[c][b] for c in causes) for b in range(BUCKETS)]
        if sum(counts):
            size = -(-judged.plan.tokens // BUCKETS)
            yield Text()
            yield Text(f"{title}, by stretches of {counted(size, 'token')}")
            yield from (Text(each) for each in _wrapped(" ".join(f"{each}" for each in counts)))


def closing(judged: Judged) -> list[str]:
    """Return the lines that it ends with: what is misplaced, and the verdict."""
    found = list(judged.misplaced)
    for of in judged.plan.traces:
        found.append(_of_trace(judged, of))
    if len(judged.plan.traces) > 1:
        found += _of_agreement(judged)
    if not judged.judged:
        found.append("nothing was judged")
    return found


def _of_trace(judged: Judged, of: Surveyed) -> str:
    tally, wrong = judged.found.of[of.letter], judged.wrong(of.letter)
    routed = counted(sum(tally.total([each]) for each in (*OTHERS, *WRONG)), "routed token")
    if tally.total(["no ids"]):
        return f"{of.letter}: no experts were recorded; those that its logits choose stand for them"
    if not tally.total(["right", "rounding", *WRONG]):
        words = "nothing to judge but the ids" if tally.total(["unjudged"]) else "nothing judged"
        return f"{of.letter}: {routed}, {words}"
    words = f"{wrong} wrong" if wrong else "none wrong"
    if 2 * wrong > tally.total(["right", "rounding", *WRONG]):
        words += f": most of it; is it {judged.known.name}, and are these its logits?"
    return (
        f"{of.letter}: {routed}, {tally.total(['right'])} right, "
        f"{tally.total(['rounding'])} by rounding of the record, {words}"
    )


def _of_agreement(judged: Judged) -> list[str]:
    tally = judged.found.agreement
    causes = [f"{tally.total([each])} {each}" for each in CAUSES if tally.total([each])]
    alike = tally.total(["alike"])
    words = f"A and B: {alike} alike, {judged.differ} differ"
    found = [words + (f" ({', '.join(causes)})" if causes else "")]
    if not judged.differ:
        return found
    if not judged.unexplained:
        return [*found, "every difference is explained"]
    share = judged.unexplained / tally.total(["alike", *CAUSES])
    return [*found, f"not explained: {judged.unexplained}, {share:.3%} of the tokens"]
