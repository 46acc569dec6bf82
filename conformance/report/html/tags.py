"""HTML by function calls: text is escaped unless it is markup already."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from moe_routing.conformance.report.plain import printable
from moe_routing.conformance.report.text import prose

_VOID = ("meta", "link", "input", "br")


class Markup(str):
    """Text that is HTML already."""


def text(value: str) -> Markup:
    """Return ``value`` as HTML that shows it literally; markup stays as it is."""
    return value if isinstance(value, Markup) else Markup(escape(printable(value)))


def tag(element: str, /, *children: str, **attributes: str | bool | None) -> Markup:
    """Return one element; ``class_`` is ``class``, ``data_x`` is ``data-x``.

    An attribute that is None or False is left out, one that is True has no value.
    """
    given = [
        _attribute(key, value)
        for key, value in attributes.items()
        if value is not None and value is not False
    ]
    opened = f"<{element}{''.join(given)}>"
    return Markup(opened if element in _VOID else f"{opened}{joined(children)}</{element}>")


def _attribute(key: str, value: str | bool) -> str:
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(printable(str(value)))}"'


def in_code(value: str) -> Markup:
    """Return prose of ours with what stands in backticks as code."""
    parts = enumerate(prose(value))
    return joined([tag("code", part) if number % 2 else part for number, part in parts])


def joined(parts: Sequence[str]) -> Markup:
    """Return parts one after another, as markup."""
    return Markup("".join(text(part) for part in parts))
