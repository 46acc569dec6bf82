"""A token's values, read back from a report so that they can be drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moe_routing.conformance.explain.token_view import (
    ExpertView,
    GroupView,
    NormedView,
    SlotView,
    Span,
    TokenView,
)


def token_view(data: Any) -> TokenView | None:
    """Return the values of a token, or None where a report has none, or none of this form."""
    if not isinstance(data, Mapping):
        return None
    try:
        return TokenView(
            token=int(data["token"]),
            judged=bool(data["judged"]),
            explained=bool(data["explained"]),
            cut=_number(data["cut"]),
            experts=tuple(_expert(each) for each in data["experts"]),
            hidden=int(data["hidden"]),
            slots=tuple(_slot(each) for each in data["slots"]),
            due=tuple(int(each) for each in data["due"]),
            groups=tuple(
                GroupView(id=int(e["id"]), score=float(e["score"]), kept=bool(e["kept"]))
                for e in data["groups"]
            ),
            input=_input(data.get("input")),
        )
    except (KeyError, TypeError, ValueError, OverflowError):  # of another version, or made by hand
        return None


def _expert(each: Mapping[str, Any]) -> ExpertView:
    return ExpertView(
        id=int(each["id"]),
        rank=int(each["rank"]),
        group=None if each["group"] is None else int(each["group"]),
        kept=bool(each["kept"]),
        logit=float(each["logit"]),
        permitted_logit=_span(each["permitted_logit"]),
        own_logit=_number(each["own_logit"]),
        score=float(each["score"]),
        bias=_number(each["bias"]),
        competing=_span(each["competing"]),
        answered=bool(each["answered"]),
        due=bool(each["due"]),
    )


def _slot(each: Mapping[str, Any]) -> SlotView:
    return SlotView(
        expert=int(each["expert"]),
        weight=float(each["weight"]),
        permitted=None if each["permitted"] is None else _span(each["permitted"]),
        right=bool(each["right"]),
    )


def _input(data: Any) -> NormedView | None:
    if data is None:
        return None
    hidden, normed = (tuple(float(x) for x in data[name]) for name in ("hidden", "normed"))
    return NormedView(hidden=hidden, normed=normed, size=int(data["size"]))


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _span(value: Any) -> Span:
    low, high = value
    return float(low), float(high)
