"""The table of backends, as Markdown: what each takes and claims, in words, and its conformance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from moe_routing.conformance.report.claim_words import (
    capabilities_in_words,
    composes_in_words,
    computes_in_words,
    either,
    limits_in_words,
    permutes_in_words,
    takes_in_words,
)
from moe_routing.implementations import Capabilities
from moe_routing.reference.checks import counted
from moe_routing.reference.formats import INPUT_FORMATS

_STATUSES = ("pass", "known", "unsupported")


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A row of the table: an adapter, what it wraps, what it claims, and its methods."""

    name: str
    wraps: str
    capabilities: Capabilities
    methods: tuple[str, ...] = ("route",)


def backends_table(
    backends: Sequence[Backend],
    reports: Sequence[Mapping[str, Any]],
    unserved: Mapping[str, str],
    on_ranks: Mapping[str, str] | None = None,
    kept: str = "",
) -> str:
    """Return the page: a row a backend, with its conformance on each device that a report has.

    ``kept`` is the page as it was: from that come the cells that no report has, and what those
    were made with. A row of another version than the installed one stays whole; kept cells name
    theirs where a report of another device has another.
    """
    found = _columns(reports, mixed=bool(kept))
    were = _rows(kept)
    checked = {
        (each["name"], each.get("device", "cpu"))
        for report in reports
        for each in report["adapters"]
    }
    _keep(were, checked, found, reports)
    lines = [*_HEAD, "", *_made_by(reports, kept), _row(*_COLUMNS, *found)]
    lines.append("|---" * len([*_COLUMNS, *found]) + "|")
    for each in backends:
        cells = [column.get(each.name, "") for column in found.values()]
        was = were.get(each.name, {})
        supports = _supports(each, reports, was)
        lines.append(_row(f"`{each.name}`", *supports, *cells))
    if on_ranks:
        lines += ["", *_ON_RANKS, ""]
        lines += [f"- `{name}`: {wraps}" for name, wraps in on_ranks.items()]
    lines += ["", "## Out of scope", "", "Routers without an adapter, and why:", ""]
    lines += [f"- `{name}`: {reason}" for name, reason in unserved.items()]
    return "\n".join(lines) + "\n"


def _supports(
    backend: Backend, reports: Sequence[Mapping[str, Any]], was: Mapping[str, str]
) -> list[str]:
    """Return what a backend wraps and supports, or what it did in the version of a kept row."""
    wraps, *supports = supports_in_words(backend, reports)
    measured = was.get("wraps", "")
    if measured.startswith(f"{wraps} "):
        return [measured, *supports]  # not installed now: declared as in the adapter's release
    package = measured.rpartition(" ")[0]
    reported = _checked(backend.name, reports)
    if package and wraps != measured and wraps.startswith(f"{package} ") and not reported:
        now = zip(_COLUMNS[1:], (measured, *supports), strict=True)
        return [was.get(head, cell) for head, cell in now]
    return [wraps, *supports]


def _columns(
    reports: Sequence[Mapping[str, Any]], mixed: bool = False
) -> dict[str, dict[str, str]]:
    """Return the columns of conformance, by head: a part of the specification each, by adapter.

    On other devices than a CPU one column has all parts.
    """
    several = mixed or len({report["profile"] for report in reports}) > 1
    found: dict[str, dict[str, str]] = {part: {} for part in _PARTS_CHECKED}
    for report in reports:
        named = several and report["profile"] != "ci"
        profile = f" ({report['profile']})" if named else ""
        for each in report["adapters"]:
            device = each.get("device", "cpu")
            for part, clauses in _by_part(each, device).items():
                words = _conformance(clauses, links=device == "cpu")
                found.setdefault(part, {})[each["name"]] = words + profile * bool(words)
    return found


def _rows(page: str) -> dict[str, dict[str, str]]:
    """Return the cells of a page's table, by adapter and head."""
    lines = [line for line in page.splitlines() if line.startswith(("| adapter ", "| `"))]
    cells = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): dict(zip(cells[0], row, strict=False)) for row in cells[1:]}


def _keep(
    rows: Mapping[str, Mapping[str, str]],
    checked: Set[tuple[str, str]],
    found: dict[str, dict[str, str]],
    reports: Sequence[Mapping[str, Any]],
) -> None:
    """Add the cells of a page, for the backends that were not checked now on those devices."""
    for name, cells in rows.items():
        for head in [head for head in cells if head not in _COLUMNS]:
            device = "cpu" if head in _PARTS_CHECKED else head.removeprefix("on ")
            if (name, device) not in checked:
                now = _checked(name, reports)
                found.setdefault(head, {})[name] = _with_version(cells[head], cells, now)


def _with_version(cell: str, was: Mapping[str, str], now: str) -> str:
    """Return a kept cell, with what it was made with where its row names another version now."""
    measured = was.get("wraps")
    other = cell and now and measured and measured != now and "(with " not in cell
    return f"{cell} (with {measured})" if other else cell


def _by_part(adapter: Mapping[str, Any], device: str) -> dict[str, list[Mapping[str, Any]]]:
    """Return the clauses that an adapter was checked against, by column."""
    if device != "cpu":
        return {f"on {device}": adapter["clauses"]}
    parts: dict[str, list[Mapping[str, Any]]] = {}
    for clause in adapter["clauses"]:
        chapter = clause.get("chapter", clause["id"].partition(".")[0])
        named = (part for part, chapters in _PARTS_CHECKED.items() if chapter in chapters)
        parts.setdefault(next(named, "routing"), []).append(clause)
    return parts


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def supports_in_words(backend: Backend, reports: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """Return what the backend wraps, as a report saw it if any did, and what it supports."""
    capabilities = backend.capabilities
    routing = [
        takes_in_words(capabilities),
        limits_in_words(capabilities.limits),
        "; ".join([capabilities_in_words(capabilities), *_promised(capabilities)]),
    ]
    return [
        _checked(backend.name, reports) or backend.wraps,
        *(routing if "route" in backend.methods else [""] * len(routing)),
        permutes_in_words(capabilities.permutes) if "permute" in backend.methods else "",
        _experts(capabilities, backend.methods),
    ]


def _promised(capabilities: Capabilities) -> list[str]:
    """Return the promises that are made, as a phrase, or nothing."""
    made = capabilities.promises.declared()
    return [f"promises {' and '.join(made)}"] if made else []


def _experts(capabilities: Capabilities, methods: Sequence[str]) -> str:
    """Return what experts are claimed, with the dtypes where those are not all, and what layers."""
    if not {"experts", "layer"} & {*methods}:
        return ""
    narrow = tuple(INPUT_FORMATS) != capabilities.dtypes
    dtypes = f", in {either(capabilities.dtypes)}" if narrow else ""
    layers = (
        f"; whole layers {composes_in_words(capabilities.composes)}" if "layer" in methods else ""
    )
    return computes_in_words(capabilities.computes) + dtypes + layers


def _checked(name: str, reports: Sequence[Mapping[str, Any]]) -> str:
    """Return the package and version that the first report of a backend was made with."""
    seen = [
        each["wraps"] for report in reports for each in report["adapters"] if each["name"] == name
    ]
    return " ".join(filter(None, (seen[0]["package"], seen[0]["version"]))) if seen else ""


_COLUMNS = ("adapter", "wraps", "takes", "sizes", "claims", "permutes", "runs")
_PARTS_CHECKED: dict[str, tuple[str, ...]] = {
    "routing": (),
    "permutation": ("permutation",),
    "experts": ("experts", "layer", "shards"),
    "training": ("capacity", "balance"),
}
"""The columns of conformance on a CPU, with their chapters; routing has all the others."""

_HEAD = (
    "# Backends",
    "",
    "Made by `moe-routing adapters --markdown docs/backends.md --report report.json`, from the",
    "report of `moe-routing check ... --json report.json`, where `--keep` leaves what the page had",
    "of adapters that the report has not; do not edit it by hand. `(smoke)` is that profile.",
    "The columns `takes`, `sizes` and `claims` are what an adapter declares of its router on a CPU",
    "([adapters.md](adapters.md#claims)); one that takes hidden states computes the logits itself.",
    "`permutes` is what it declares of its [permutation](spec/permutation.md), `runs` of its",
    "[experts](spec/experts.md) and [whole layers](spec/layer.md). An empty cell: there is none.",
    "The last columns count the clauses by status, and name the [known divergences](findings.md):",
    "`experts` those of [shards](spec/shards.md), too, and `training` those of",
    "[capacity](spec/capacity.md) and [balance](spec/balance.md).",
)


_ON_RANKS = (
    "## On ranks",
    "",
    "Layers that are spread over several processes, each an adapter of one of them. `--ranks N`",
    "runs these, and `torch` ([ranks.md](ranks.md)):",
)


def _made_by(reports: Sequence[Mapping[str, Any]], kept: str = "") -> list[str]:
    """Return what the reports were run with, after what a kept page says of its own."""
    lines = [line for line in kept.splitlines() if line.startswith("Checked with ")]
    for each in reports:
        torch = each["environment"]["packages"].get("torch")
        on = " and ".join(dict.fromkeys(a.get("device", "cpu") for a in each["adapters"]))
        drawn = f"{counted(each['max_examples'], 'case')} drawn per clause"
        lines.append(
            f"Checked with suite {each['suite_version']}, profile `{each['profile']}` "
            f"({drawn}), seed {each['seed']}, on {on}" + (f" with torch {torch}." if torch else ".")
        )
    return [*dict.fromkeys(lines), ""] if lines else []


def _conformance(clauses: Sequence[Mapping[str, Any]], *, links: bool) -> str:
    """Count the clauses by status, and with ``links`` name what is known."""
    counts = dict.fromkeys(_STATUSES, 0)
    known: dict[str, None] = {}
    for clause in clauses:
        counts[clause["status"]] = counts.get(clause["status"], 0) + 1
        if clause["status"] == "known":
            known |= dict.fromkeys(clause["message"].split("; "))
    words = ", ".join(
        f"{count} {status}" for status, count in counts.items() if count and status != "unsupported"
    )
    named = ", ".join(f"[{each}](findings.md#{each})" for each in known)
    return f"{words}: {named}" if links and named else words
