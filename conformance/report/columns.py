"""Tables of the terminal: they fit any width, by dropping or cutting what matters least."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from rich.text import Text

LEAST = 40
"""The fewest columns of a cut note; with less room it takes a line of its own."""

_INDENT = 4


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column: shown whole or dropped, those of a lower ``leaves`` first.

    One with ``leaves`` 0 is never dropped.
    """

    head: str
    cells: Sequence[Text]
    right: bool = False
    leaves: int = 0

    @cached_property
    def width(self) -> int:
        """The columns of the terminal that it takes."""
        return max([len(self.head), *(cell.cell_len for cell in self.cells)])

    def shown(self, row: int) -> Text:
        """Return a cell, or with row -1 the head, as wide as the column."""
        cell = self.cells[row].copy() if row >= 0 else Text(self.head, style="bold")
        cell.align("right" if self.right else "left", self.width)
        return cell


@dataclass(frozen=True, kw_only=True)
class Notes:
    """The last column: a note a row, which is cut or moved before any other column is dropped.

    With ``most`` notes are cut to that and to the room there is; else they are whole. A note
    without room in its row is printed below it.
    """

    head: str
    cells: Sequence[Text]
    most: int | None = None


def table(columns: Sequence[Column], notes: Notes | None, width: int) -> Iterator[Text]:
    """Yield the lines of a table, its heads first."""
    columns, gap = _fitting(columns, width)
    used = _width(columns, gap)
    room = None if notes is None else _room(notes, width - used - gap)
    for row in range(-1, len(columns[0].cells)):
        line = Text(" " * (gap - 1))
        line.append_text(Text(" " * gap).join(each.shown(row) for each in columns))
        if notes is None:
            yield _stripped(line)
            continue
        note = notes.cells[row].copy() if row >= 0 else Text(notes.head, style="bold")
        if room is not None:
            yield _stripped(line.append(" " * gap).append_text(_cut(note, room)))
        else:
            yield _stripped(line)
            if row >= 0 and note:
                most = width - _INDENT if notes.most is not None else note.cell_len
                yield Text(" " * _INDENT).append_text(_cut(note, most))


def fit(columns: Sequence[Column], width: int) -> bool:
    """Return whether all columns fit next to each other."""
    return _width(columns, 1) <= width


def _fitting(columns: Sequence[Column], width: int) -> tuple[list[Column], int]:
    """Return the columns that stay at a width, and the gap between them."""
    for left in sorted({0, *(each.leaves for each in columns)}):
        kept = [each for each in columns if each.leaves == 0 or each.leaves > left]
        for gap in (2, 1):
            if _width(kept, gap) <= width:
                return kept, gap
    return kept, 1


def folded(parts: Sequence[str], width: int) -> str:
    """Return parts in one line if they fit, else in as many as they need."""
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + 2 + len(part) <= width:
            lines[-1] += f"  {part}"
        else:
            lines.append(" " * _INDENT + part)
    return "\n".join(lines)


def _width(columns: Sequence[Column], gap: int) -> int:
    return gap - 1 + sum(each.width for each in columns) + gap * (len(columns) - 1)


def _room(notes: Notes, left: int) -> int | None:
    """Return the columns of a note in its row, or None if it is printed below."""
    longest = max((cell.cell_len for cell in notes.cells), default=0)
    if notes.most is None:
        return longest if longest <= left else None
    return min(left, notes.most) if left >= min(longest, LEAST) else None


def _cut(note: Text, most: int) -> Text:
    note.truncate(most, overflow="ellipsis")
    return note


def _stripped(line: Text) -> Text:
    line.rstrip()
    return line
