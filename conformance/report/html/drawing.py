"""The numbers of one token, drawn: scores as bars, permitted bands, the cut, the weights."""

from __future__ import annotations

from moe_routing.conformance.explain.story import missed, show, span
from moe_routing.conformance.explain.token_view import ExpertView, SlotView, Span, TokenView
from moe_routing.conformance.report.html.scale import Scale
from moe_routing.conformance.report.html.tags import Markup, joined, tag


def drawn(view: TokenView, stage: str) -> Markup:
    """Draw one token, the tables that the failing ``stage`` turns on first."""
    tables = [_groups(view), _experts(view)]
    if stage == "weights":
        tables.insert(0, _slots(view))
    if stage == "logits":
        tables.insert(0, _logits(view))
    return joined(tables)


def _experts(view: TokenView) -> Markup:
    """Every expert with its score as a bar, and its band beside the cut."""
    bars = Scale.from_zero(expert.score for expert in view.experts)
    bands = Scale.around(_at_the_cut(view))
    rows = [_expert(view, expert, bars, bands) for expert in view.experts]
    biased = ["bias"] if any(expert.bias is not None for expert in view.experts) else []
    heads = ["expert", "logit", "score", "", *biased, "competes in", _axis(view)]
    return _table(
        "Selection",
        heads,
        rows,
        _more(view),
        legend=joined([_key("band", "permitted band"), _key("cut", "the cut")])
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
        tag("td", _bar(bars, expert.score), class_="drawn short"),
        _number("bias", show(expert.bias)) if expert.bias is not None else "",
        _number("competes in", span(expert.competing)),
        tag("td", _band(bands, expert.competing, view.cut), class_="drawn"),
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
    return _table("Weights", heads, [_slot(slot, bars) for slot in view.slots], "")


def _slot(slot: SlotView, bars: Scale) -> Markup:
    permitted = (slot.weight, slot.weight) if slot.permitted is None else slot.permitted
    close = Scale.around([slot.weight, *permitted])
    return tag(
        "tr",
        tag("th", tag("span", str(slot.expert), class_="id"), scope="row"),
        _number("answered", show(slot.weight)),
        tag("td", _bar(bars, slot.weight), class_="drawn short"),
        _number("permitted", "no expert" if slot.permitted is None else span(permitted)),
        tag("td", _band(close, permitted, None, slot.weight), class_="drawn"),
        tag("td", "" if slot.right else missed(slot.weight, permitted).strip(), class_="note"),
        data_chosen="both" if slot.right else "answered",
    )


def _logits(view: TokenView) -> Markup:
    """Every expert's own logit, and where rounding would put it."""
    rows = []
    for expert in view.experts:
        own = expert.logit if expert.own_logit is None else expert.own_logit
        low, high = expert.permitted_logit
        right = low <= own <= high
        close = Scale.around([own, low, high])
        rows.append(
            tag(
                "tr",
                tag("th", tag("span", str(expert.id), class_="id"), scope="row"),
                _number("answered", show(own)),
                _number("permitted", span(expert.permitted_logit)),
                tag("td", _band(close, (low, high), None, own), class_="drawn"),
                tag("td", "" if right else missed(own, (low, high)).strip(), class_="note"),
                data_chosen="both" if right else "answered",
            )
        )
    return _table("Logits", ["expert", "answered", "permitted", "", ""], rows, _more(view))


def _groups(view: TokenView) -> Markup:
    """Every group with its score as a bar."""
    if not view.groups:
        return Markup("")
    bars = Scale.from_zero(group.score for group in view.groups)
    rows = [
        tag(
            "tr",
            tag("th", tag("span", str(group.id), class_="id"), scope="row"),
            _number("score", show(group.score)),
            tag("td", _bar(bars, group.score), class_="drawn"),
            tag("td", "kept" if group.kept else "excluded", class_="note"),
            data_chosen="both" if group.kept else "neither",
            data_excluded=not group.kept,
        )
        for group in view.groups
    ]
    return _table("Groups", ["group", "score", "", ""], rows, "")


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


def _bar(scale: Scale, value: float) -> Markup:
    low, high = min(0.0, value), max(0.0, value)
    bar = tag("rect", x=scale.percent(low), y="5", width=scale.width(low, high), height="10")
    return _strip(bar, f"bar of {show(value)}")


def _band(scale: Scale, band: Span, cut: float | None, answer: float | None = None) -> Markup:
    low, high = band
    parts = [
        _line("track", "0%", "100%", "10", "10"),
        _line(
            "band" if answer is None else "band right",
            scale.percent(low),
            scale.percent(high),
            "10",
            "10",
        ),
    ]
    beyond = scale.beyond(low, high)
    if beyond is not None:
        parts[1] = _arrow(beyond)
    if cut is not None:
        parts.append(_line("cut", scale.percent(cut), scale.percent(cut), "0", "20"))
    if answer is not None:
        parts.append(tag("circle", cx=scale.percent(answer), cy="10", r="4.5", class_="answer"))
    words = f"permitted {span(band)}"
    words += "" if cut is None else f"; the cut is {show(cut)}"
    words += "" if answer is None else f"; answered {show(answer)}"
    return _strip(joined(parts), words)


def _line(class_: str, x1: str, x2: str, y1: str, y2: str) -> Markup:
    return tag("line", class_=class_, x1=x1, x2=x2, y1=y1, y2=y2)


def _arrow(end: str) -> Markup:
    sign, x, anchor = ("◀", "0%", "start") if end == "left" else ("▶", "100%", "end")
    return tag("text", sign, x=x, y="14", text_anchor=anchor, class_="beyond")


def _strip(inside: Markup, words: str) -> Markup:
    """A drawing as wide as its cell; screen readers get ``words``."""
    return tag("svg", inside, class_="strip", role="img", aria_label=words, height="20")


def _axis(view: TokenView) -> str:
    return "" if view.cut is None else f"around the cut, {show(view.cut)}"


def _key(class_: str, words: str) -> Markup:
    line = (
        _line(class_, "50%", "50%", "2", "18")
        if class_ == "cut"
        else _line(class_, "10%", "90%", "10", "10")
    )
    mark = tag("svg", line, class_="key", width="24", height="20", aria_hidden="true")
    return tag("span", mark, words, class_="dim")


def _more(view: TokenView) -> str:
    return f"{view.hidden} more experts, all with less, are left out" if view.hidden else ""
