"""What a backend claims, in the words of the table of backends."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace

from moe_routing.implementations import (
    Capabilities,
    Claim,
    Composes,
    Computes,
    FromTwo,
    GroupRule,
    Limits,
    Permutes,
)
from moe_routing.implementations.capabilities import LAYOUTS
from moe_routing.implementations.permitted import listed
from moe_routing.reference import Renormalize
from moe_routing.reference.activations import CLAMPED

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


def capabilities_in_words(capabilities: Capabilities) -> str:
    """Return the claims as phrases; what they share is not repeated."""
    plain = Claim()
    every = (plain.groups, Claim.whole().groups)
    wide = [each for each in capabilities.claims if each.groups in every]
    if any(_without_later(each) == plain for each in wide):
        return "the whole specification"
    return "; or ".join(dict.fromkeys(map(claim_in_words, capabilities.claims)))


def _without_later(claim: Claim) -> Claim:
    """Return a claim with the plain values of the axes that came after 1.0."""
    return replace(claim, gate_dtype=("input",), groups=Claim().groups, shared_slots=(None,))


def takes_in_words(capabilities: Capabilities) -> str:
    """Return a backend's inputs as a phrase: where it begins, dtypes, layouts, numerics."""
    begins = "hidden states" if capabilities.takes == "hidden" else "logits"
    layouts = [] if set(capabilities.layouts) == set(LAYOUTS) else list(capabilities.layouts)
    dtypes = f"{begins} in {either(capabilities.dtypes) or 'no dtype'}"
    return ", ".join([dtypes, *layouts, *capabilities.numerics.declared()])


def permutes_in_words(permutes: Permutes) -> str:
    """Return what a permutation claims, as a phrase: order, padding, what routes may be."""
    words = ["stable" if "stable" in permutes.order else "in any order"]
    align = listed(permutes.align)
    if align is None:
        words.append("rows aligned")
    elif align != (1,):
        words.append(f"rows aligned to {either([str(rows) for rows in align])}")
    if permutes.empty_takes == ("align",):
        words.append("a block for an empty expert")
    words += ["absent routes"] * (True in permutes.absent)
    words += ["no repeated experts"] * (True not in permutes.repeats)
    return ", ".join(words)


def computes_in_words(computes: Computes) -> str:
    """Return what experts are claimed, as a phrase: activations, biases, routes, sizes."""
    both = len(set(computes.gated)) == 2
    words = [] if both else ["gated" if True in computes.gated else "not gated"]
    words.append(either(computes.activations))
    words += [
        f"{name} {either([f'{each:g}' for each in values])}"
        for name, values in (("limit", listed(computes.limits)), ("alpha", listed(computes.alphas)))
        if values is not None and CLAMPED in computes.activations
    ]
    words += ["biases or none"] * (True in computes.biases)
    words += [f"weight on the {either(computes.weight_on)}"] * ("input" in computes.weight_on)
    words += ["absent routes"] * (True in computes.absent)
    words += ["no repeated experts"] * (True not in computes.repeats)
    steps = {"H": computes.hidden_multiple_of, "F": computes.width_multiple_of}
    words += [f"{size} a multiple of {step}" for size, step in steps.items() if step > 1]
    most = {"E": computes.max_experts, "K": computes.max_top_k, "T": computes.max_tokens}
    words += [f"{size} at most {limit}" for size, limit in most.items() if limit is not None]
    words += [computes.products] * (computes.products != "float32")
    return ", ".join(words)


def composes_in_words(composes: Composes) -> str:
    """Return the shared experts that a layer may have, as a phrase."""
    if not {*composes.shared} - {"none"}:
        return "without a shared expert"
    both = len({*composes.gated}) == 2
    gate = "a" if both else "a gated" if True in composes.gated else "an ungated"
    words = f"with {gate} shared expert"
    return f"{words} or without" if "none" in composes.shared else words


def limits_in_words(limits: Limits) -> str:
    """Return a backend's size limits, as a phrase."""
    most = (("E", limits.max_experts), ("K", limits.max_top_k), ("T", limits.max_tokens))
    words = [f"{size} at most {limit:,}" for size, limit in most if limit is not None]
    words += [f"T at least {limits.min_tokens}"] * (limits.min_tokens > 0)
    step = limits.experts_multiple_of
    words += [f"E a multiple of {step}"] * (step > 1)
    words += [
        f"{size} one of {_numbers(each)}"
        for size, permitted in (("E", limits.experts), ("K", limits.top_k))
        if (each := listed(permitted)) is not None
    ]
    return ", ".join(words + _group_limits(limits)) or "any"


def _numbers(permitted: Sequence[int]) -> str:
    if isinstance(permitted, range) and permitted.stop - permitted.start > 3 * permitted.step:
        return f"{permitted[0]}, {permitted[0] + permitted.step} ... {permitted[-1]}"
    return either([str(number) for number in permitted])


def _group_limits(limits: Limits) -> list[str]:
    """Return the limits of groups, a phrase each."""
    most = {
        "groups": limits.max_groups,
        "groups kept": limits.max_kept_groups,
        "experts a group": limits.max_group_size,
        "experts in kept groups": limits.max_kept_experts,
    }
    words = [f"at most {limit} {what}" for what, limit in most.items() if limit is not None]
    least = limits.min_group_size
    return words + [f"at least {least} experts a group"] * (least > 1)


def either(names: Sequence[str]) -> str:
    """Return names as a choice: ``a, b or c``."""
    return " or ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def claim_in_words(claim: Claim) -> str:
    """Return one claim as a phrase: score, bias, groups, weights, parts, precision."""
    parts = [_score(claim), *_bias(claim), *_groups(claim), *_weights(claim)]
    for axis, words in _PARTS.items():
        permitted = getattr(claim, axis)
        if True in permitted:
            parts.append(words if False not in permitted else f"{words} or none")
    return ", ".join([*parts, *_precision(claim), *_slots(claim), *_shared(claim)])


def _shared(claim: Claim) -> list[str]:
    """Return the shared slots that are claimed, as a phrase, or nothing."""
    permitted = listed(claim.shared_slots)
    if permitted is None:
        return ["any shared slots or none"]
    words = [f"{each.count} shared at {each.weight:g}" for each in permitted if each is not None]
    return [" or ".join(words + ["none"] * (None in permitted))] if words else []


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
    return [f"bias on the {either(places)}{absent}"] if places else []


def _groups(claim: Claim) -> list[str]:
    rules = [rule for rule in claim.groups if isinstance(rule, GroupRule)]
    words = [f"groups {_rule(rule)}" for rule in rules]
    return [" or ".join(words + ["none"] * (None in claim.groups))] if words else []


def _rule(rule: GroupRule) -> str:
    given = ["(as many of each)"] if True in rule.from_each else []
    return " or ".join([*_best(rule), *given])


def _best(rule: GroupRule) -> list[str]:
    if False not in rule.from_each:
        return []
    tops = listed(rule.top)
    top = "any" if tops is None else "/".join(map(str, tops))
    fills = "/".join("-inf" if math.isinf(fill) else str(fill) for fill in rule.fill)
    return [f"(best {top}, fill {fills})"]


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


def _norm(rule: Renormalize | FromTwo | None) -> str:
    if isinstance(rule, FromTwo):
        return f"{_norm(rule.rule)} from K = 2 on"
    if rule is None:
        return "not renormalised"
    order = "" if rule.order == 1.0 else f" by the {rule.order:g}-norm"
    eps = f" + {rule.eps:g}" if rule.eps else ""
    floor = f", at least {rule.floor:g}" if rule.floor else ""
    return f"renormalised{order}{eps}{floor}"


def _precision(claim: Claim) -> list[str]:
    stages = ("logits", "scores", "weights")
    narrow = [each for each in stages if getattr(claim, f"{each}_dtype") == ("input",)]
    words = [f"{' and '.join(narrow)} in the input's dtype"] if narrow else []
    if "float32" not in claim.gate_dtype:
        return words
    return [*words, f"gate or logits in float32{' or not' * ('input' in claim.gate_dtype)}"]
