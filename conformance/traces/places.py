"""Records in the wrong place: a layer shifted by some tokens, or two layers swapped.

Found on a few windows of tokens, before anything is judged: a layer whose routes are not what
they should be in most of them is looked for elsewhere, among other layers and shifts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.traces.block_data import BlockData
from moe_routing.conformance.traces.pieces import Files
from moe_routing.conformance.traces.sampling import windows
from moe_routing.conformance.traces.survey import Surveyed
from moe_routing.reference.formats import Ids

MOST = 8
"""The greatest shift that is looked for, in tokens."""

Signatures = npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True, order=True)
class Place:
    """Where the record of a layer was found: row t has what ``layer`` has in row t - ``shift``."""

    layer: int
    shift: int = 0

    def words(self, expected: int) -> str:
        """Return ``'s shifted by one token`` and the like; ``expected`` is where it belongs."""
        where = "'s" if self.layer == expected else f"'s layer {self.layer}"
        if not self.shift:
            return where
        count = "one token" if abs(self.shift) == 1 else f"{abs(self.shift)} tokens"
        row = f"t - {self.shift}" if self.shift > 0 else f"t + {-self.shift}"
        return f"{where} shifted by {count}: row t has what belongs in row {row}"


def signatures(ids: Ids | None) -> Signatures | None:
    """Return a number for the set of experts of each token, equal where the sets are."""
    if ids is None:
        return None
    with np.errstate(over="ignore"):
        mixed = (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(32)
        total: Signatures = mixed.sum(axis=1, dtype=np.uint64)
    return total


def same_sets(one: Ids, other: Ids) -> npt.NDArray[np.bool_]:
    """Return, per token, whether two records name the same experts, in any order."""
    same: npt.NDArray[np.bool_] = (np.sort(one, axis=1) == np.sort(other, axis=1)).all(axis=1)
    return same


Reader = Callable[[int, int, int], Ids | None]
"""Returns the experts of a layer in a stretch of tokens, None where it has none."""


def recorded(of: Surveyed, files: Files) -> Reader:
    """Return the reader of the experts that were recorded, or that the logits choose."""
    return lambda layer, start, stop: (
        BlockData(of=of, number=layer, start=start, stop=stop, files=files).choice
    )


def chosen_by_logits(of: Surveyed, files: Files) -> Reader:
    """Return the reader of the experts that the logits of a layer choose."""

    def read(layer: int, start: int, stop: int) -> Ids | None:
        data = BlockData(of=of, number=layer, start=start, stop=stop, files=files)
        data.__dict__["ids"] = None
        return data.choice

    return read


def places(
    layers: Iterable[int], pairs: dict[int, int], tokens: int, ours: Reader, theirs: Reader
) -> dict[int, Place]:
    """Return where the layers of one record are found in another, of those that are not in place.

    ``pairs`` says which layer of ``theirs`` each of ``ours`` should equal.
    """
    found: dict[int, Place] = {}
    held: dict[int, list[Signatures | None]] = {}
    for layer in layers:
        mine = [signatures(ours(layer, *window)) for window in windows(tokens)]
        if any(each is None for each in mine):
            continue
        here = Place(layer=pairs[layer])
        share = _share(here, mine, held, theirs, tokens)
        if share is None or 2.0 * share >= 1.0:
            continue
        best = max(
            _candidates(here, pairs.values()),
            key=lambda place: _share(place, mine, held, theirs, tokens) or 0.0,
        )
        most = _share(best, mine, held, theirs, tokens) or 0.0
        if 2.0 * most > 1.0:
            found[layer] = best
    return found


def _candidates(here: Place, layers: Iterable[int]) -> list[Place]:
    """Return the places that are tried: of the same layer first, small shifts first."""
    shifts = [0, *(sign * size for size in range(1, MOST + 1) for sign in (1, -1))]
    others = [here.layer, *(each for each in layers if each != here.layer)]
    return [Place(layer=layer, shift=shift) for layer in others for shift in shifts]


def _share(
    place: Place,
    mine: list[Signatures | None],
    held: dict[int, list[Signatures | None]],
    theirs: Reader,
    tokens: int,
) -> float | None:
    """Return how many of the tokens looked at have the routes of a place; None: it has none."""
    if place.layer not in held:
        held[place.layer] = [
            signatures(theirs(place.layer, max(start - MOST, 0), min(stop + MOST, tokens)))
            for start, stop in windows(tokens)
        ]
    equal = of = 0
    for one, other, (start, stop) in zip(mine, held[place.layer], windows(tokens), strict=True):
        if one is None or other is None:
            return None
        offset = max(start - MOST, 0)
        first = max(start, offset + place.shift)
        last = max(first, min(stop, offset + len(other) + place.shift))
        left = one[first - start : last - start]
        right = other[first - place.shift - offset : last - place.shift - offset]
        equal += int((left == right).sum())
        of += stop - start  # what a shift leaves over counts, so that few tokens prove none
    return equal / of
