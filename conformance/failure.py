"""Failures as values: what went wrong, at which stage, in the words a person can act on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moe_routing.conformance.judge import Interval, Verdict
from moe_routing.conformance.token_view import TokenView, token_view

STAGES = ("layout", "logits", "selection", "weights")
"""The stages that a verdict can fail at, in pipeline order."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One broken clause on one case: the stage, the first differing token, the story.

    ``summary`` is one line, ``details`` the stage-by-stage lines beneath it, ``view`` the
    same token as values, for those who draw it.
    """

    stage: str
    summary: str
    token: int | None = None
    details: tuple[str, ...] = ()
    view: TokenView | None = None


def first_failure(verdict: Verdict, *stages: str) -> Failure | None:
    """Return the first thing wrong among ``stages``, by pipeline order, or None."""
    checks = {"logits": _logits, "selection": _selection, "weights": _weights}
    for stage in STAGES:
        if stage in stages and (failure := checks[stage](verdict)) is not None:
            return failure
    return None


def at(name: str, *indices: int) -> str:
    """Return ``name[3, 1]``."""
    return f"{name}[{', '.join(str(int(i)) for i in indices)}]"


def show(value: float) -> str:
    """Return a number with every digit that float32 can hold."""
    return format(float(value), ".9g")


def span(bounds: Interval, *index: int) -> str:
    """Return the permitted interval at an index."""
    lo, hi = float(bounds.lo[index]), float(bounds.hi[index])
    return show(lo) if lo == hi else f"[{show(lo)}, {show(hi)}]"


def _logits(verdict: Verdict) -> Failure | None:
    if verdict.logits is None or verdict.logits.all():
        return None
    t, e = np.argwhere(~verdict.logits)[0]
    bounds = verdict.bounds.logits.permitted
    return token_failure(
        verdict,
        int(t),
        stage="logits",
        summary=(
            f"{at('logits', t, e)}={show(verdict.answer.logits[t, e])}, "
            f"but should be in {span(bounds, t, e)}"
        ),
    )


def _selection(verdict: Verdict) -> Failure | None:
    config, answer = verdict.bounds.config, verdict.answer
    for fine, wrong in (
        (verdict.in_range, f"every id should be in [0, {config.num_experts})"),
        (verdict.distinct, "the ids of a token should be distinct"),
        (verdict.selection, "rounding cannot explain this choice"),
    ):
        if not fine.all():
            t = int(np.argmin(fine))
            expected = verdict.bounds.reference.expert_ids[t].tolist()
            return token_failure(
                verdict,
                t,
                stage="selection",
                summary=(
                    f"{at('expert_ids', t)}={answer.expert_ids[t].tolist()}, but {wrong}; "
                    f"the reference selects {expected}"
                ),
            )
    return None


def _weights(verdict: Verdict) -> Failure | None:
    if verdict.weights.all():
        return None
    t, k = np.argwhere(~verdict.weights)[0]
    expert = int(verdict.answer.expert_ids[t, k])
    return token_failure(
        verdict,
        int(t),
        stage="weights",
        summary=(
            f"{at('weights', t, k)}={show(verdict.answer.weights[t, k])}, but should be in "
            f"{span(verdict.weight_bounds.permitted, t, k)} (expert {expert})"
        ),
    )


def token_failure(verdict: Verdict, token: int, *, stage: str, summary: str) -> Failure:
    """Return the failure of one token, with its story and its values."""
    return Failure(
        stage=stage,
        token=token,
        summary=summary,
        details=story(verdict, token),
        view=token_view(verdict, token),
    )


def story(verdict: Verdict, token: int) -> tuple[str, ...]:
    """Tell what happened to one token, stage by stage, for the experts that matter."""
    bounds, answer, reference = verdict.bounds, verdict.answer, verdict.bounds.reference
    config, inputs = bounds.config, bounds.inputs
    lines = [
        f"token {token} of T={inputs.num_tokens} (H={inputs.hidden_size} E={config.num_experts} "
        f"K={config.top_k}, {inputs.dtype}): {describe(config)}"
    ]
    answered = [e for e in answer.expert_ids[token].tolist() if 0 <= e < config.num_experts]
    expected = reference.expert_ids[token].tolist()
    lines.append(
        f"answered  experts {answer.expert_ids[token].tolist()} "
        f"with weights {[float(show(w)) for w in answer.weights[token]]}"
    )
    lines.append(
        f"reference experts {expected} "
        f"with weights {[float(show(w)) for w in reference.weights[token]]}"
    )
    if config.groups is not None:
        lines.append(_groups_line(verdict, token))
    if not verdict.judged[token]:
        return (*lines, "this token's scores are undefined: only its ids are judged")
    header = (
        f"{'expert':>8} {'logit':>14} {'permitted logit':>32} {'score':>14} {'competes in':>32}"
    )
    rows = list(dict.fromkeys([*answered, *expected]))[:12]
    return (*lines, header, *(_expert_line(verdict, token, e, answered) for e in rows))


def _groups_line(verdict: Verdict, token: int) -> str:
    reference, size = verdict.bounds.reference, verdict.bounds.config.experts_per_group
    kept = np.flatnonzero(reference.kept[token][::size]).tolist()
    scores = [float(show(s)) for s in reference.group_scores[token]]
    return f"groups of {size} score {scores}; kept {kept}"


def _expert_line(verdict: Verdict, token: int, expert: int, answered: list[int]) -> str:
    reference, own = verdict.bounds.reference, verdict.answer.logits
    logit = show(reference.logits[token, expert] if own is None else own[token, expert])
    permitted = span(verdict.bounds.logits.permitted, token, expert)
    competing = verdict.later.competing
    out = "" if reference.kept[token, expert] else "  group excluded"
    mark = "*" if expert in answered else " "
    return (
        f"{mark}{expert:>7} {logit:>14} {permitted:>32} "
        f"{show(reference.scores[token, expert]):>14} {span(competing, token, expert):>32}{out}"
    )


def describe(config: object) -> str:
    """Return the fields of a configuration that differ from their defaults."""
    defaults = type(config).__dataclass_fields__
    return (
        ", ".join(
            f"{name}={value!r}"
            for name, value in vars(config).items()
            if value != defaults[name].default and name not in ("num_experts", "top_k")
        )
        or "the plain softmax router"
    )
