"""The numbers of one token, drawn: scores as bars, permitted bands, the cut, the weights."""

from __future__ import annotations

from moe_routing.conformance.explain.cut import cut_words, misplaced
from moe_routing.conformance.explain.numbers import listed, missed, show, slot_note, span
from moe_routing.conformance.explain.rows import Gap, expert_rows, group_rows, slot_rows
from moe_routing.conformance.explain.token_view import (
    ExpertView,
    GroupView,
    SlotView,
    TokenView,
)
from moe_routing.conformance.report.html.scale import Scale
from moe_routing.conformance.report.html.strips import band, bar, key
from moe_routing.conformance.report.html.tags import Markup, joined, tag


def drawn(view: TokenView, stage: str) -> Markup:
    """Draw one token, the tables that the failing ``stage`` turns on first."""
    tables = [_groups(view), _experts(view)]
    if stage == "weights" or misplaced(view):
        tables.insert(0, _slots(view))
    if stage == "logits":
        tables.insert(0, _logits(view))
    return joined([_input(view), *tables])


def _input(view: TokenView) -> Markup:
    """The hidden state before and after its norm."""
    if view.input is None:
        return Markup("")
    size = view.input.size
    rows = [
        tag("tr", tag("th", name, scope="row"), tag("td", listed([show(x) for x in values], size)))
        for name, values in (("hidden", view.input.hidden), ("normed", view.input.normed))
    ]
    return _table("Input", ["", "values"], rows, "")


def _experts(view: TokenView) -> Markup:
    """Every expert with its score as a bar, and its band next to the cut."""
    bars = Scale.from_zero(expert.score for expert in view.experts)
    bands = Scale.around(_at_the_cut(view))
    rows = [
        _gap(each) if isinstance(each, Gap) else _expert(view, each, bars, bands)
        for each in expert_rows(view)
    ]
    biased = ["bias"] if any(expert.bias is not None for expert in view.experts) else []
    heads = ["expert", "logit", "score", "", *biased, "competes in", _axis(view)]
    return _table(
        "Selection",
        heads,
        rows,
        " ".join(cut_words(view)),
        legend=joined([key("band", "permitted band"), key("cut", "the cut")])
        if view.cut is not None
        else Markup(""),
    )


def _at_the_cut(view: TokenView) -> list[float]:
    """Return the values to look at closely: the cut, and the experts it decides on."""
    disputed = [e for e in view.experts if e.answered != e.due] or list(view.experts)
    ends = [end for expert in disputed for end in expert.competing]
    return ends if view.cut is None else [view.cut, *ends]


def _expert(view: TokenView, expert: ExpertView, bars: Scale, bands: Scale) -> Markup:
    return tag(
        "tr",
        _name(expert),
        _number("logit", show(expert.logit)),
        _number("score", show(expert.score)),
        tag("td", bar(bars, expert.score), class_="drawn short"),
        _number("bias", show(expert.bias)) if expert.bias is not None else "",
        _number("competes in", span(expert.competing)),
        tag("td", band(bands, expert.competing, view.cut), class_="drawn"),
        data_chosen=_chosen(expert),
        data_excluded=not expert.kept,
    )


def _name(expert: ExpertView) -> Markup:
    words = {
        "both": "chosen, and due",
        "answered": "chosen, but not due",
        "due": "due, but not chosen",
        "neither": "",
    }[_chosen(expert)]
    group = "" if expert.group is None else f" · group {expert.group}"
    group += "" if expert.kept else ", excluded"
    return tag(
        "th",
        tag("span", str(expert.id), class_="id"),
        tag("span", words, class_="chip") if words else "",
        tag("span", group, class_="dim") if group else "",
        scope="row",
    )


def _chosen(expert: ExpertView) -> str:
    if expert.answered and expert.due:
        return "both"
    return "answered" if expert.answered else "due" if expert.due else "neither"


def _slots(view: TokenView) -> Markup:
    """Every slot of the answer: its weight as a bar, and where rounding would put it."""
    bars = Scale.from_zero(slot.weight for slot in view.slots)
    heads = ["expert", "answered", "", "permitted", "", ""]
    rows = [_gap(each) if isinstance(each, Gap) else _slot(each, bars) for each in slot_rows(view)]
    return _table("Weights", heads, rows, "")


def _slot(slot: SlotView, bars: Scale) -> Markup:
    permitted = (slot.weight, slot.weight) if slot.permitted is None else slot.permitted
    close = Scale.around([slot.weight, *permitted])
    return tag(
        "tr",
        tag("th", tag("span", str(slot.expert), class_="id"), scope="row"),
        _number("answered", show(slot.weight)),
        tag("td", bar(bars, slot.weight), class_="drawn short"),
        _number("permitted", "no expert" if slot.permitted is None else span(permitted)),
        tag("td", band(close, permitted, None, slot.weight), class_="drawn"),
        tag("td", slot_note(slot).strip(), class_="note"),
        data_chosen="both" if slot.right else "answered",
    )


def _logits(view: TokenView) -> Markup:
    """Every expert's own logit, and where rounding would put it."""
    rows = [_gap(each) if isinstance(each, Gap) else _logit(each) for each in expert_rows(view)]
    return _table("Logits", ["expert", "answered", "permitted", "", ""], rows, "")


def _logit(expert: ExpertView) -> Markup:
    own = expert.logit if expert.own_logit is None else expert.own_logit
    low, high = expert.permitted_logit
    right = low <= own <= high
    close = Scale.around([own, low, high])
    return tag(
        "tr",
        tag("th", tag("span", str(expert.id), class_="id"), scope="row"),
        _number("answered", show(own)),
        _number("permitted", span(expert.permitted_logit)),
        tag("td", band(close, (low, high), None, own), class_="drawn"),
        tag("td", "" if right else missed(own, (low, high)).strip(), class_="note"),
        data_chosen="both" if right else "answered",
    )


def _groups(view: TokenView) -> Markup:
    """Every group with its score as a bar."""
    if not view.groups:
        return Markup("")
    bars = Scale.from_zero(group.score for group in view.groups)
    rows = [
        _gap(each) if isinstance(each, Gap) else _group(each, bars) for each in group_rows(view)
    ]
    return _table("Groups", ["group", "score", "", ""], rows, "")


def _group(group: GroupView, bars: Scale) -> Markup:
    return tag(
        "tr",
        tag("th", tag("span", str(group.id), class_="id"), scope="row"),
        _number("score", show(group.score)),
        tag("td", bar(bars, group.score), class_="drawn"),
        tag("td", "kept" if group.kept else "excluded", class_="note"),
        data_chosen="both" if group.kept else "neither",
        data_excluded=not group.kept,
    )


def _gap(gap: Gap) -> Markup:
    """The rows that are left out in one place, as one row."""
    return tag("tr", tag("th", gap.words, scope="row", class_="dim"))


def _table(title: str, heads: list[str], rows: list[Markup], note: str, **more: str) -> Markup:
    head = tag("tr", *(tag("th", each, scope="col") for each in heads))
    return tag(
        "figure",
        tag("figcaption", tag("b", title), more.get("legend", "")),
        tag("table", tag("thead", head), tag("tbody", *rows), class_=f"numbers {title.lower()}"),
        tag("p", note, class_="dim") if note else "",
    )


def _number(name: str, value: str) -> Markup:
    """A cell with a number or a band; it is named where there is no room for column heads."""
    class_ = "number wide" if value.startswith("[") else "number"
    return tag("td", value, class_=class_, data_name=name)


def _axis(view: TokenView) -> str:
    return "" if view.cut is None else f"around the cut, {show(view.cut)}"
