"""The laws of rows and segments: each returns the first place that breaks it, or None."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.judge.permutation import Array, Breach, Due, Permuted
from moe_routing.reference.formats import Ids
from moe_routing.reference.permutation import PADDING


def conserved(due: Due, answer: Permuted) -> Breach | None:
    """Every present route is in exactly one row, and no absent one in any."""
    rows, number = answer.permutation.rows, due.num_routes
    wild = (rows < PADDING) | (rows >= number)
    if wild.any():
        return _wild(due, answer, first(wild))
    times = np.bincount(rows[rows != PADDING], minlength=number)
    wrong = times != due.present
    if not wrong.any():
        return None
    route = first(wrong)
    places = np.flatnonzero(rows == route)
    expert = int(due.experts[route])
    if not due.present[route]:
        words = f"{due.named(route)} is absent, but is in row {places[0]}"
    elif not places.size:
        words = f"{due.named(route)} goes to expert {expert}, but is in no row"
    else:
        words = f"{due.named(route)} is in rows {places[0]} and {places[1]}"
    return Breach(words=words, row=_or_none(places), route=route, expert=expert)


def _wild(due: Due, answer: Permuted, row: int) -> Breach:
    held, expert = int(answer.permutation.rows[row]), int(answer.expert_of_row[row])
    words = f"row {row} holds route {held}, but there are {due.num_routes} routes"
    if held < PADDING:
        words = f"row {row} holds a token that did not choose expert {expert}, or not so often"
    return Breach(words=words, row=row, expert=expert)


def grouped(due: Due, answer: Permuted) -> Breach | None:
    """A segment holds routes of its own expert alone."""
    rows = answer.permutation.rows
    known = (rows >= 0) & (rows < due.num_routes)
    owners = np.append(due.experts, -1)[np.where(known, rows, -1)]
    wrong = known & (owners >= 0) & (owners != answer.expert_of_row)
    if not wrong.any():
        return None
    row = first(wrong)
    route, expert = int(rows[row]), int(answer.expert_of_row[row])
    where = f"expert {expert}'s segment" if expert >= 0 else "no segment"
    words = f"row {row} lies in {where}, but {due.named(route)} goes to expert {owners[row]}"
    return Breach(words=words, row=row, route=route, expert=int(owners[row]))


def counts(due: Due, answer: Permuted) -> Breach | None:
    """A count is the number of present routes of the expert, over all slots."""
    found = answer.permutation.counts
    if (found == due.counts).all():
        return None
    e = first(found != due.counts)
    words = f"counts[{e}]={found[e]}, but the routes of expert {e} are {due.counts[e]}"
    return Breach(words=words, expert=e)


def offsets(due: Due, answer: Permuted) -> Breach | None:
    """Segments begin at row 0, follow one another, and end at the last row."""
    starts, number = answer.permutation.starts, answer.permutation.rows.size
    if starts[0] != 0:
        return Breach(words=f"the first segment starts at row {starts[0]}, but should at 0")
    falling = np.diff(starts) < 0
    if falling.any():
        e = first(falling)
        words = f"expert {e}'s segment goes from row {starts[e]} to {starts[e + 1]}"
        return Breach(words=words, expert=e)
    if starts[-1] != number:
        words = f"the last segment ends at row {starts[-1]}, but there are {number} rows"
        return Breach(words=words, row=min(int(starts[-1]), number))
    return None


def aligned(due: Due, answer: Permuted) -> Breach | None:
    """A segment is a multiple of the alignment, and an empty expert takes what it should."""
    sizes, config = answer.permutation.sizes, due.config
    odd = (sizes % config.align != 0) | (sizes < np.where(due.counts == 0, due.sizes, 0))
    if not odd.any():
        return None
    e = first(odd)
    what = f"a multiple of {config.align}" if due.counts[e] else f"{due.sizes[e]}, being empty"
    words = f"expert {e}'s segment has {sizes[e]} rows, but should have {what}"
    return Breach(words=words, row=int(answer.permutation.starts[e]), expert=e)


def no_waste(due: Due, answer: Permuted) -> Breach | None:
    """A segment has no more rows than its routes and the alignment need."""
    sizes = answer.permutation.sizes
    if not (sizes > due.sizes).any():
        return None
    e = first(sizes > due.sizes)
    words = (
        f"expert {e}'s segment has {sizes[e]} rows, but its {due.counts[e]} routes need "
        f"{due.sizes[e]}"
    )
    return Breach(words=words, row=int(answer.permutation.starts[e]), expert=e)


def padding_marked(due: Due, answer: Permuted) -> Breach | None:
    """In a segment routes come first, and every row after them is marked as padding."""
    rows, owner = answer.permutation.rows, answer.expert_of_row
    last = np.append(answer.permutation.starts[:-1] + due.counts, 0)[owner]
    holds = np.arange(rows.size) < last
    wrong = (owner >= 0) & (holds == (rows == PADDING))
    if not wrong.any():
        return None
    row = first(wrong)
    e = int(owner[row])
    if holds[row]:
        words = f"row {row} is padding, but the {due.counts[e]} routes of expert {e} come first"
        return Breach(words=words, row=row, expert=e)
    held = int(rows[row])
    words = (
        f"row {row} is padding, after the {due.counts[e]} routes of expert {e}, but holds {held}"
    )
    return Breach(words=words, row=row, route=held if held < due.num_routes else None, expert=e)


def capacity_of_buffer(due: Due, answer: Permuted) -> Breach | None:
    """The rows that are used lie in the buffer, and are no more than the worst case needs."""
    number, most = answer.permutation.rows.size, due.config.most_rows(due.num_routes)
    if answer.used is not None and answer.capacity is not None and answer.used > answer.capacity:
        words = f"{answer.used} rows are used of a buffer of {answer.capacity}"
        return Breach(words=words, row=answer.capacity)
    if number > most:
        return Breach(words=f"{number} rows are used, but the worst case needs {most}", row=most)
    return None


def stable(due: Due, answer: Permuted) -> Breach | None:
    """Inside an expert, routes keep the order of their numbers."""
    held = np.flatnonzero(answer.permutation.rows != PADDING)
    routes, owner = answer.permutation.rows[held], answer.expert_of_row[held]
    wrong = (routes[1:] < routes[:-1]) & (owner[1:] == owner[:-1])
    if not wrong.any():
        return None
    place = first(wrong) + 1
    route, before = int(routes[place]), int(routes[place - 1])
    words = (
        f"row {held[place]} of expert {owner[place]} holds {due.named(route)}, after route {before}"
    )
    return Breach(words=words, row=int(held[place]), route=route, expert=int(owner[place]))


def _or_none(places: Ids) -> int | None:
    return int(places[0]) if places.size else None


def first(wrong: Array) -> int:
    """Return the first place that is wrong."""
    return int(np.argmax(wrong))
