"""The table of backends, as Markdown: what each takes and claims, in words, and its conformance."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moe_routing.implementations import Capabilities, Claim, GroupRule, Limits
from moe_routing.implementations.capabilities import LAYOUTS
from moe_routing.implementations.permitted import listed
from moe_routing.reference import Renormalize

_STATUSES = ("pass", "known", "unsupported")
_SCORES = {
    ("identity", "softmax_of_selected"): "softmax of the selected logits",
    ("identity", "sigmoid_of_selected"): "sigmoid of the selected logits",
}
_PARTS = {
    "logit_softcap": "soft cap",
    "logit_multiplier": "logit multiplier",
    "input_norm": "input norm",
    "gate_bias": "linear bias",
    "gate_delta": "LoRA delta",
    "per_expert_scale": "scales of experts",
    "expert_table": "expert table",
}


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A row of the table: an adapter, what it wraps, and what it claims."""

    name: str
    wraps: str
    capabilities: Capabilities


def backends_table(
    backends: Sequence[Backend],
    reports: Sequence[Mapping[str, Any]],
    unserved: Mapping[str, str],
) -> str:
    """Return the page: a row a backend, with its conformance on each device that a report has."""
    several = len({report["profile"] for report in reports}) > 1
    found: dict[str, dict[str, str]] = {"cpu": {}}
    for report in reports:
        profile = f" ({report['profile']})" if several else ""
        for each in report["adapters"]:
            device = each.get("device", "cpu")
            column = found.setdefault(device, {})
            column[each["name"]] = _conformance(each, links=device == "cpu") + profile
    heads = ["conformance" if device == "cpu" else f"on {device}" for device in found]
    lines = [*_HEAD, "", *_made_by(reports), _row(*_COLUMNS, *heads)]
    lines.append("|---" * len([*_COLUMNS, *heads]) + "|")
    for each in backends:
        cells = [column.get(each.name, "") for column in found.values()]
        lines.append(_row(f"`{each.name}`", *supports_in_words(each, reports), *cells))
    lines += ["", "## Out of scope", "", "Routers without an adapter, and why:", ""]
    lines += [f"- `{name}`: {reason}" for name, reason in unserved.items()]
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def supports_in_words(backend: Backend, reports: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """Return what the backend wraps, as a report saw it if any did, and what it supports."""
    capabilities = backend.capabilities
    return [
        _checked(backend.name, reports) or backend.wraps,
        takes_in_words(capabilities),
        limits_in_words(capabilities.limits),
        capabilities_in_words(capabilities),
    ]


def _checked(name: str, reports: Sequence[Mapping[str, Any]]) -> str:
    """Return the package and version that the first report of a backend was made with."""
    seen = [
        each["wraps"] for report in reports for each in report["adapters"] if each["name"] == name
    ]
    return " ".join(filter(None, (seen[0]["package"], seen[0]["version"]))) if seen else ""


_COLUMNS = ("adapter", "wraps", "takes", "sizes", "claims")
_HEAD = (
    "# Backends",
    "",
    "Made by `moe-routing adapters --markdown docs/backends.md --report report.json`, from the",
    "report of `moe-routing check ... --json report.json`; do not edit it by hand. The columns",
    "`takes`, `sizes` and `claims` are what each adapter declares on a CPU",
    "([adapters.md](adapters.md#claims)); one that takes hidden states computes the logits itself.",
    "Conformance counts the clauses by status, and names the [known divergences](findings.md).",
)


def _made_by(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the versions and settings that the reports were run with."""
    lines = []
    for each in reports:
        torch = each["environment"]["packages"].get("torch")
        on = " and ".join(dict.fromkeys(a.get("device", "cpu") for a in each["adapters"]))
        lines.append(
            f"Checked with suite {each['suite_version']}, profile `{each['profile']}` "
            f"({each['max_examples']} cases drawn per clause), seed {each['seed']}, on {on}"
            + (f" with torch {torch}." if torch else ".")
        )
    return [*dict.fromkeys(lines), ""] if lines else []


def _conformance(adapter: Mapping[str, Any], *, links: bool) -> str:
    """Count the clauses by status, and with ``links`` name what is known."""
    counts = dict.fromkeys(_STATUSES, 0)
    known: dict[str, None] = {}
    for clause in adapter["clauses"]:
        counts[clause["status"]] = counts.get(clause["status"], 0) + 1
        if clause["status"] == "known":
            known |= dict.fromkeys(clause["message"].split("; "))
    words = ", ".join(
        f"{count} {status}" for status, count in counts.items() if count and status != "unsupported"
    )
    named = ", ".join(f"[{each}](findings.md#{each})" for each in known)
    return f"{words}: {named}" if links and named else words


def capabilities_in_words(capabilities: Capabilities) -> str:
    """Return the claims as phrases; what they share is not repeated."""
    if Claim() in capabilities.claims:
        return "the whole specification"
    return "; or ".join(dict.fromkeys(map(claim_in_words, capabilities.claims)))


def takes_in_words(capabilities: Capabilities) -> str:
    """Return a backend's inputs as a phrase: where it begins, dtypes, layouts, numerics."""
    begins = "hidden states" if capabilities.takes == "hidden" else "logits"
    layouts = [] if set(capabilities.layouts) == set(LAYOUTS) else list(capabilities.layouts)
    dtypes = f"{begins} in {_either(capabilities.dtypes) or 'no dtype'}"
    return ", ".join([dtypes, *layouts, *capabilities.numerics.declared()])


def limits_in_words(limits: Limits) -> str:
    """Return a backend's size limits, as a phrase."""
    most = (("E", limits.max_experts), ("K", limits.max_top_k), ("T", limits.max_tokens))
    words = [f"{size} at most {limit:,}" for size, limit in most if limit is not None]
    step = limits.experts_multiple_of
    return ", ".join(words + [f"E a multiple of {step}"] * (step > 1)) or "any"


def _either(names: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def claim_in_words(claim: Claim) -> str:
    """Return one claim as a phrase: score, bias, groups, weights, parts, precision."""
    parts = [_score(claim), *_bias(claim), *_groups(claim), *_weights(claim)]
    for axis, words in _PARTS.items():
        permitted = getattr(claim, axis)
        if True in permitted:
            parts.append(words if False not in permitted else f"{words} or none")
    return ", ".join([*parts, *_precision(claim), *_slots(claim)])


def _score(claim: Claim) -> str:
    names = []
    for score in claim.score:
        for source in claim.weights_from:
            plain = "masked " + score if source == "masked_scores" else score
            names.append(_SCORES.get((score, source), plain))
    return " or ".join(dict.fromkeys(names))


def _bias(claim: Claim) -> list[str]:
    places = [place for place in claim.selection_bias if place != "none"]
    absent = " or none" if "none" in claim.selection_bias else ""
    return [f"bias on the {_either(places)}{absent}"] if places else []


def _groups(claim: Claim) -> list[str]:
    rules = [rule for rule in claim.groups if isinstance(rule, GroupRule)]
    words = [f"groups {_rule(rule)}" for rule in rules]
    return [" or ".join(words + ["none"] * (None in claim.groups))] if words else []


def _rule(rule: GroupRule) -> str:
    tops = listed(rule.top)
    top = "any" if tops is None else "/".join(map(str, tops))
    fills = "/".join("-inf" if math.isinf(fill) else str(fill) for fill in rule.fill)
    return f"(best {top}, fill {fills})"


def _weights(claim: Claim) -> list[str]:
    rules, scales = listed(claim.renormalize), listed(claim.scale)
    norms = ["any norm"] if rules is None else [_norm(rule) for rule in rules]
    words = [" or ".join(norms).replace(" or not renormalised", " or not")]
    if all(source == "softmax_of_selected" for source in claim.weights_from):
        words = []  # they sum to 1 whatever the norm
    scaled = scales != (1.0,)
    return [*words, *(["scaled"] if scaled else [])]


def _slots(claim: Claim) -> list[str]:
    counts = listed(claim.top_k)
    if counts is None:
        return []
    if isinstance(counts, range):
        least, bounded = claim.least_top_k, counts.stop < sys.maxsize
        return [f"K = {least} to {counts[-1]}" if bounded else f"K from {least} on"]
    return [f"K = {' or '.join(map(str, counts))}"]


def _norm(rule: Renormalize | None) -> str:
    if rule is None:
        return "not renormalised"
    order = "" if rule.order == 1.0 else f" by the {rule.order:g}-norm"
    eps = f" + {rule.eps:g}" if rule.eps else ""
    floor = f", at least {rule.floor:g}" if rule.floor else ""
    return f"renormalised{order}{eps}{floor}"


def _precision(claim: Claim) -> list[str]:
    stages = ("logits", "scores", "weights")
    narrow = [each for each in stages if getattr(claim, f"{each}_dtype") == ("input",)]
    return [f"{' and '.join(narrow)} in the input's dtype"] if narrow else []
